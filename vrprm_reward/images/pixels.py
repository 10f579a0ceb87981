"""One image reference -> upright, opaque RGB pixels of its own size."""

import sys
import threading
from typing import cast

from PIL import ExifTags, Image, ImageChops

from vrprm_reward.errors import ImageFormatError
from vrprm_reward.images.files import check_size, decoding, opened_image
from vrprm_reward.images.settings import DEFAULT_SETTINGS, ImageSettings
from vrprm_reward.types import ImageSource

# Pillow decodes and reads EXIF on first use, not safely from two threads, and one PIL image may
# stand in several rollouts that are scored at once.
_LOADING = threading.Lock()


def load_image(source: ImageSource, settings: ImageSettings = DEFAULT_SETTINGS) -> Image.Image:
    """One image as upright, opaque RGB of its own size: a new image, without metadata.

    The EXIF orientation is applied; transparency is laid on white; 16-bit greys keep their upper
    8 bits (mode `I` is taken as 0 to 65535). Animated images are refused rather than reduced to
    a frame that the policy may not have seen; of a PIL image, the current frame is taken. A PIL
    image that was handed in is decoded if it was not yet, and otherwise left as it is.

    Truncated files are refused unless the process has set Pillow's `LOAD_TRUNCATED_IMAGES`,
    which is not touched.

    Raises:
        MissingImageError: an empty reference, no readable file, nothing at the URL.
        ImageFormatError: not a whole, still image of an allowed format.
        ImageLimitError: over the limit on bytes, pixels, sides or aspect ratio.
        ImageSourceError: a kind of source, folder or host that the settings do not allow.
    """
    if isinstance(source, Image.Image):
        name = f"PIL image (mode {source.mode})"
        check_size(source, name, settings)
        with decoding(name), _LOADING:
            source.load()
            source.getexif()
        return _upright_rgb(source, name)
    with opened_image(source, settings) as (name, _, image):
        with decoding(name):
            image.load()
        return _upright_rgb(image, name)


_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    with decoding(name):
        turn = _ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        rgb = _opaque_rgb(image, name)
        if turn is not None:
            rgb = rgb.transpose(turn)
    # Left in place, a colour profile or a transparent colour would be saved with the PNG.
    rgb.info.clear()
    return rgb


def _opaque_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F"):
        darkest, lightest = cast(tuple[float, float], image.getextrema())
        if image.mode == "F" or darkest < 0 or lightest > 0xFFFF:
            raise ImageFormatError(
                f"{name} has mode {image.mode} and values from {darkest:g} to {lightest:g}: scale "
                "it to 8 bits first"
            )
    if image.mode.startswith("I"):
        image = _upper_8_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _upper_8_bits(image: Image.Image) -> Image.Image:
    """A 16-bit grey image as `L`, or as `LA` where one of its greys stands for transparent."""
    transparent = image.info.get("transparency")
    words = image.convert("I;16") if image.mode == "I" else image
    big = words.mode == "I;16B" or (words.mode == "I;16N" and sys.byteorder == "big")
    data = words.tobytes()
    upper = Image.frombytes("L", image.size, data[0 if big else 1 :: 2])
    if isinstance(transparent, int):
        lower = Image.frombytes("L", image.size, data[1 if big else 0 :: 2])
        opaque = ImageChops.lighter(
            upper.point([255 * (value != transparent >> 8) for value in range(256)]),
            lower.point([255 * (value != transparent & 0xFF) for value in range(256)]),
        )
        upper.putalpha(opaque)
    return upper
