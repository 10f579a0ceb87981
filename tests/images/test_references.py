import base64
import os
from pathlib import Path

import pytest

from tests.images.pictures import KEEP_SIZE, PNG
from vrprm_reward.errors import ImageFormatError, ImageSourceError, MissingImageError
from vrprm_reward.images import ImageSettings, final_pixels, load_image


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("", MissingImageError, "image is ''"),
        (b"", MissingImageError, "empty bytes"),
        ("no/such.png", MissingImageError, r"'no/such.png' cannot be read \(No such file"),
        (Path("no/such.png"), MissingImageError, r"check the path"),
        ("file:///no/such.png", MissingImageError, r"'/no/such.png'"),
        ("nul\0.png", MissingImageError, "not a usable path"),
        (base64.b64encode(bytes(300)).decode(), MissingImageError, "base64 text needs"),
        ("file://elsewhere/a.png", ImageSourceError, "names the machine 'elsewhere'"),
        ("s3://bucket/a.png", ImageSourceError, "s3:// is not understood"),
        (3, ImageSourceError, "int is no image source"),
        ("data:image/png;base64", ImageFormatError, "no comma"),
        ("data:image/png;base64,a?b", ImageFormatError, "not valid base64"),
        ("data:image/png;base64,\ud800", ImageFormatError, "half a surrogate pair"),
        ("data:image/png;base64,abcde", ImageFormatError, "not valid base64"),
        ("https://images.example/a.png", ImageSourceError, "set allow_urls"),
    ],
)
def test_an_unusable_reference_is_named_with_its_position_and_a_remedy(source, error, message):
    with pytest.raises(error, match=message) as caught:
        final_pixels([PNG, source], KEEP_SIZE)
    assert str(caught.value).startswith("image 2 of 2: ")
    assert len(str(caught.value)) < 600


def test_folders_and_pipes_are_missing_images(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [(tmp_path, "Is a directory"), (tmp_path / "pipe", "not a regular file")]:
        with pytest.raises(MissingImageError, match=reason):
            load_image(path)


def test_relative_paths_start_from_the_root_setting(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    assert load_image("a.png", ImageSettings(root=tmp_path)).size == (8, 6)
    with pytest.raises(MissingImageError, match=str(tmp_path)):
        load_image("b.png", ImageSettings(root=tmp_path))


def test_files_stay_inside_the_allowed_folders(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    for folder in (inside, outside):
        (folder / "a.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "circle.png").symlink_to(inside / "circle.png")
    (tmp_path / "door").symlink_to(inside)
    settings = ImageSettings(root=inside, allowed_folders=(tmp_path / "door",))
    assert load_image("a.png", settings).size == (8, 6)
    for path in ("link.png", "../outside/a.png", outside / "a.png", f"file://{outside}/none.png"):
        with pytest.raises(ImageSourceError, match="not in allowed_folders"):
            load_image(path, settings)
    with pytest.raises(MissingImageError):
        load_image("circle.png", settings)
    with pytest.raises(ImageSourceError, match="paths are off"):
        load_image("a.png", ImageSettings(allow_paths=False))
