import base64
import io
import pickle
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image

from tests.images.pictures import DATA_URL, GREEN, KEEP_SIZE, PNG, encoded, noise, solid
from vrprm_reward.errors import ImageLimitError, ImageSourceError, MissingImageError
from vrprm_reward.images import FinalImage, PixelLimits, final_pixels


def test_seventeen_images_are_too_many_and_none_is_too_few():
    with pytest.raises(ImageLimitError, match="17 images are more than max_images = 16"):
        final_pixels([PNG] * 17, KEEP_SIZE)
    with pytest.raises(MissingImageError, match="no image"):
        final_pixels([], KEEP_SIZE)
    with pytest.raises(ImageSourceError, match="put it in"):
        final_pixels("a.png", KEEP_SIZE)


def test_equal_pixels_are_equal_wherever_they_come_from(tmp_path):
    path = tmp_path / "a b%20.png"
    path.write_bytes(PNG)
    sources = [
        solid(),
        PNG,
        encoded(solid(), "BMP"),
        path,
        str(path),
        path.as_uri(),
        path.as_uri().replace("file://", "file://localhost"),
        DATA_URL,
        DATA_URL.replace("data:", "DATA:").rstrip("="),
        f"data:image/png,{quote_from_bytes(PNG)}",
        f"data:;base64,{quote_from_bytes(base64.encodebytes(PNG))}",
    ]
    finals = final_pixels(sources, KEEP_SIZE)
    assert len({final.digest for final in finals}) == len(set(finals)) == 1
    assert FinalImage(solid(size=(6, 8))) != finals[0] != FinalImage(solid(color=GREEN))


def test_final_images_travel_without_loss_and_without_metadata():
    image = noise()
    image.info["icc_profile"] = b"profile"
    image.info["transparency"] = image.getpixel((0, 0))
    (final,) = final_pixels([image], KEEP_SIZE)
    reopened = Image.open(io.BytesIO(final.png()))
    assert reopened.info == {}
    assert reopened.tobytes() == final.image.tobytes()
    assert final_pixels([final.data_url()], KEEP_SIZE) == (final,)
    assert pickle.loads(pickle.dumps(final)) == final


def test_final_pixels_are_resized_to_the_limits_and_only_then():
    image = noise((100, 50))
    limits = PixelLimits(min_pixels=64 * 64, max_pixels=128 * 128, multiple_of=32)
    assert final_pixels([image], limits)[0].image.size == (96, 64)
    assert final_pixels([image], KEEP_SIZE)[0].image.tobytes() == image.tobytes()
    assert PixelLimits(max_pixels=200).fit(100, 50) == (20, 10)
    assert PixelLimits(min_pixels=20_000).fit(100, 50) == (200, 100)
    assert PixelLimits(multiple_of=32).fit(100, 5) == (96, 32)
    with pytest.raises(ValueError, match="no size fits"):
        PixelLimits(multiple_of=32, max_pixels=1000)
