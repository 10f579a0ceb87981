import io
import threading

import pytest
from PIL import Image

from tests.images.pictures import GREEN, PNG, RED, WHITE, encoded, noise, palette, solid
from vrprm_reward.errors import ImageFormatError
from vrprm_reward.images import load_image


@pytest.mark.parametrize(
    ("data", "color"),
    [
        pytest.param(PNG, RED, id="png"),
        pytest.param(encoded(solid("RGBA", (255, 0, 0, 0))), WHITE, id="png transparent"),
        pytest.param(encoded(solid("RGBA", (0, 0, 0, 51))), (204,) * 3, id="png half transparent"),
        pytest.param(encoded(solid("LA", (0, 51))), (204,) * 3, id="png grey and alpha"),
        pytest.param(palette(), RED, id="palette"),
        pytest.param(palette(transparent=1), WHITE, id="palette with a transparent colour"),
        pytest.param(palette(transparent=b"\xff\x33"), (255, 204, 204), id="palette with alphas"),
        pytest.param(encoded(solid(), transparency=RED), WHITE, id="rgb with a transparent colour"),
        pytest.param(encoded(solid("L", 90)), (90,) * 3, id="grey"),
        pytest.param(encoded(solid("1", 1)), WHITE, id="one bit"),
        pytest.param(encoded(solid("1", 0), transparency=0), WHITE, id="one bit, transparent"),
        pytest.param(encoded(solid("I;16", 0x1234)), (0x12,) * 3, id="16 bit grey"),
        pytest.param(encoded(solid("I;16", 0x1234), transparency=0x1234), WHITE, id="16 bit tRNS"),
        pytest.param(encoded(solid("I;16", 0x1234), transparency=0x1235), (0x12,) * 3, id="other"),
        pytest.param(encoded(solid(), "WEBP", lossless=True), RED, id="webp"),
        pytest.param(encoded(solid("RGBA", (0, 0, 0, 0)), "WEBP"), WHITE, id="webp transparent"),
        pytest.param(encoded(solid(), "BMP"), RED, id="bmp"),
        pytest.param(encoded(solid("L", 90), "JPEG"), (90,) * 3, id="grey jpeg"),
        pytest.param(encoded(solid("CMYK", (0, 255, 255, 0)), "JPEG"), (254, 0, 0), id="cmyk jpeg"),
    ],
)
def test_every_encoding_becomes_opaque_rgb(data, color):
    image = load_image(data)
    assert image.mode == "RGB"
    assert image.size == (8, 6)
    assert image.info == {}
    assert all(abs(a - b) <= 1 for a, b in zip(image.getpixel((3, 3)), color, strict=True))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_a_16_bit_gradient_is_scaled_and_not_clipped(mode):
    image = Image.new(mode, (256, 4))
    for x in range(256):
        for y in range(4):
            image.putpixel((x, y), x * 257)
    assert [load_image(image).getpixel((x, 2))[0] for x in range(256)] == list(range(256))


@pytest.mark.parametrize(("mode", "color"), [("La", (0, 51)), ("PA", 0), ("YCbCr", 0), ("HSV", 0)])
def test_rare_modes_of_pil_images_become_rgb(mode, color):
    assert load_image(Image.new(mode, (8, 6), color)).mode == "RGB"


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", -1), ("I", 70_000)])
def test_values_without_a_known_range_are_refused_rather_than_guessed(mode, value):
    with pytest.raises(ImageFormatError, match=rf"mode {mode} .* scale it to 8 bits"):
        load_image(Image.new(mode, (8, 6), value))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_the_exif_orientation_is_applied_once(image_format):
    image = noise()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, image_format, exif=exif)
    upright = load_image(data)
    assert upright.size == (24, 32)
    assert load_image(upright).size == (24, 32)
    assert load_image(Image.open(io.BytesIO(data))).tobytes() == upright.tobytes()
    if image_format == "PNG":
        assert upright.tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()


def test_a_pil_image_handed_in_is_left_as_it_is():
    image = solid("P", 1)
    image.info["transparency"] = 1
    before = image.tobytes(), image.mode, dict(image.info)
    load_image(image).paste(GREEN, (0, 0, 8, 6))
    assert (image.tobytes(), image.mode, image.info) == before
    rgb = solid()
    load_image(rgb).paste(GREEN, (0, 0, 8, 6))
    assert rgb.getpixel((0, 0)) == RED


def test_one_lazy_pil_image_can_be_loaded_from_many_threads():
    lazy = Image.open(io.BytesIO(encoded(noise((300, 300)))))
    expected = noise((300, 300)).tobytes()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(load_image(lazy).tobytes() == expected))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_of_a_camera_file_with_a_preview_the_main_picture_is_taken():
    data = encoded(noise(), "MPO", save_all=True, append_images=[solid()])
    assert load_image(data).size == (32, 24)
