import contextlib
import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.images.pictures import DATA_URL, GREEN, PNG, encoded, noise, png_header, solid
from vrprm_reward.errors import ImageError, ImageFormatError, ImageLimitError
from vrprm_reward.images import ImageSettings, load_image


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_animated_images_are_refused(image_format):
    data = encoded(solid(), image_format, save_all=True, append_images=[solid(color=GREEN)])
    with pytest.raises(ImageFormatError, match="animated: save the frame"):
        load_image(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"just text", id="text"),
        pytest.param(encoded(solid(), "GIF"), id="gif"),
        pytest.param(encoded(solid(), "TIFF"), id="tiff"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="only a signature"),
        pytest.param(encoded(noise())[:-200], id="truncated png"),
        pytest.param(encoded(noise(), "JPEG")[:-200], id="truncated jpeg"),
        pytest.param(encoded(noise(), "WEBP")[:-100], id="truncated webp"),
        pytest.param(encoded(noise(), "BMP")[:-100], id="truncated bmp"),
    ],
)
def test_bytes_that_are_no_whole_image_are_a_format_error_that_does_not_show_them(data):
    with pytest.raises(ImageFormatError, match=rf"image of {len(data):,} bytes .*PNG") as caught:
        load_image(data)
    assert "0x" not in str(caught.value)


def test_a_format_that_is_not_allowed_is_refused():
    with pytest.raises(ImageFormatError, match=r"allowed format \(JPEG\)"):
        load_image(PNG, ImageSettings(formats=("JPEG",)))


@given(
    image_format=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]),
    place=st.integers(0, 10_000),
    junk=st.binary(max_size=8),
    cut=st.integers(0, 400),
)
def test_damaged_bytes_are_an_image_or_an_image_error(image_format, place, junk, cut):
    data = bytearray(encoded(noise(), image_format, exif=Image.Exif()))
    place %= len(data)
    data[place : place + len(junk)] = junk
    with contextlib.suppress(ImageError):
        assert load_image(bytes(data[: len(data) - cut])).mode == "RGB"


def webp_header(width, height):
    """A lossless WebP that says how large it is and has no pixels."""
    chunk = b"VP8L" + struct.pack("<IBI", 5, 0x2F, (width - 1) | (height - 1) << 14)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_header(10_000, 10_000), id="100 megapixels"),
        pytest.param(png_header(60_000, 60_000), id="3600 megapixels"),
        pytest.param(webp_header(16_000, 16_000), id="webp"),
    ],
)
def test_a_decompression_bomb_is_refused_from_its_header_and_without_warning(data):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageLimitError), warnings.catch_warnings(record=True) as seen:
        load_image(data)
    assert seen == []
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("image", "settings", "message"),
    [
        (solid(size=(1, 1)), {}, "1 x 1 pixels, and min_side = 4"),
        (solid(size=(1200, 4)), {}, "1200 x 4 pixels, and max_aspect_ratio = 200"),
        (solid(size=(4, 1200)), {}, "4 x 1200 pixels, and max_aspect_ratio = 200"),
        (solid(size=(11, 10)), {"max_pixels_decoded": 100}, "than the 100 that are decoded"),
    ],
)
def test_size_limits_hold_for_files_and_for_pil_images(image, settings, message):
    for source in (image, encoded(image)):
        with pytest.raises(ImageLimitError, match=message):
            load_image(source, ImageSettings(**settings))
    assert load_image(solid(size=(800, 4))).size == (800, 4)


def test_the_byte_limit_holds_for_every_encoded_source(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    settings = ImageSettings(max_bytes=len(PNG) - 1)
    for source in (PNG, DATA_URL, tmp_path / "a.png"):
        with pytest.raises(ImageLimitError, match=rf"max_bytes = {len(PNG) - 1:,}"):
            load_image(source, settings)
        assert load_image(source, ImageSettings(max_bytes=len(PNG))).size == (8, 6)
