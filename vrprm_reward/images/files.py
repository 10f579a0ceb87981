"""Image files, opened and checked by their headers before any pixel is decoded."""

import contextlib
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vrprm_reward.errors import ImageError, ImageFormatError, ImageLimitError
from vrprm_reward.images.references import read_source
from vrprm_reward.images.settings import ImageFormat, ImageSettings

_FORMATS: dict[ImageFormat, tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile]]] = {
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    "BMP": (re.compile(rb"BM"), BmpImageFile),
}


def format_of(data: bytes) -> str | None:
    """Pillow's name of the format, told by the first bytes alone; None for an unknown one."""
    signatures = ((kind, signature) for kind, (signature, _) in _FORMATS.items())
    return next((kind for kind, signature in signatures if signature.match(data)), None)


@contextlib.contextmanager
def opened_image(
    source: str | os.PathLike[str] | bytes, settings: ImageSettings
) -> Iterator[tuple[str, bytes, ImageFile]]:
    """(name for messages, file, still image of an allowed size with no pixel decoded).

    Raises:
        MissingImageError: an empty reference, no readable file, nothing at the URL.
        ImageFormatError: not a still image of an allowed format, as far as its header tells.
        ImageLimitError: over the limit on bytes, pixels, sides or aspect ratio.
        ImageSourceError: a kind of source, folder or host that the settings do not allow.
    """
    name, data = read_source(source, settings)
    if len(data) > settings.max_bytes:
        raise ImageLimitError(
            f"{name} has more than max_bytes = {settings.max_bytes:,} bytes: make it smaller, or "
            "raise max_bytes"
        )
    with _with_header_read(data, name, settings) as image:
        check_size(image, name, settings)
        if getattr(image, "is_animated", False):
            raise ImageFormatError(
                f"{name} is animated: save the frame that the policy saw as a PNG and use that"
            )
        yield name, data, image


def _with_header_read(data: bytes, name: str, settings: ImageSettings) -> ImageFile:
    """The image with its header read and no pixel decoded.

    The classes are called directly because `Image.open` issues its warning about large images
    before the size can be seen here, and warnings cannot be held back for one thread only.
    """
    kind = format_of(data)
    if kind is not None and kind in settings.formats:
        with decoding(name):
            return _FORMATS[kind][1](io.BytesIO(data))
    raise ImageFormatError(
        f"{name} is not an image of an allowed format ({', '.join(settings.formats)}): check what "
        "it holds, or save it as a PNG"
    )


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a bad file into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageLimitError(f"{name} is too large to decode: make it smaller") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        EOFError,
        struct.error,
        zlib.error,
        Warning,
    ) as error:
        # Pillow's own text stays out: it has held memory addresses, which must not reach clients.
        raise ImageFormatError(
            f"{name} is truncated, corrupt or of an unknown kind: save it again as a PNG"
        ) from error


def check_size(image: Image.Image, name: str, settings: ImageSettings) -> None:
    """Raise `ImageLimitError` when an image is over a limit on pixels, sides or aspect ratio."""
    width, height = image.size
    size = f"{name} is {width} x {height} pixels"
    if width * height > settings.max_pixels_decoded:
        raise ImageLimitError(
            f"{size}, more than the {settings.max_pixels_decoded:,} that are decoded: make it "
            "smaller (ImageSettings.max_pixels_decoded is the limit)"
        )
    if min(width, height) < settings.min_side:
        raise ImageLimitError(
            f"{size}, and min_side = {settings.min_side}: enlarge it, or leave it out"
        )
    if max(width, height) / min(width, height) > settings.max_aspect_ratio:
        raise ImageLimitError(
            f"{size}, and max_aspect_ratio = {settings.max_aspect_ratio:g}: crop or pad it"
        )
