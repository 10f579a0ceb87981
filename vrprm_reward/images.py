"""Image references -> final pixels, under limits: the one way by which every engine gets them.

What leaves `final_pixels` is upright, opaque, 8-bit RGB of its final size, so that two engines
that take the same problem see the same pixels. Everything that can be refused is refused before
pixels are decoded, and no Pillow setting of the process is changed.
"""

import base64
import contextlib
import functools
import hashlib
import io
import math
import os
import re
import stat
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, cast

from PIL import ExifTags, Image, ImageChops
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vrprm_reward.errors import (
    ImageError,
    ImageFormatError,
    ImageLimitError,
    ImageSourceError,
    MissingImageError,
)
from vrprm_reward.image_urls import (
    describe_url,
    fetch_image_bytes,
    path_of_file_url,
    read_data_url,
)
from vrprm_reward.types import ImageSource

ImageFormat = Literal["PNG", "JPEG", "WEBP", "BMP"]
"""Encoded formats that can be allowed. GIF is not among them: its frames may be larger than its
header says, so its size cannot be checked before it is decoded."""


class ImageSettings(BaseModel):
    """Which images are accepted, and from where. The defaults trust the caller's own files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=20 * 2**20, ge=1)
    """Largest encoded image, in bytes."""

    max_pixels_decoded: int = Field(default=50_000_000, ge=1)
    """Largest width x height, in pixels, read from the header before anything is decoded."""

    max_aspect_ratio: float = Field(default=200.0, ge=1)
    """Largest long side / short side. Qwen's processors refuse more than 200."""

    min_side: int = Field(default=4, ge=1)
    """Smallest width and height, in pixels. Images of one pixel have crashed engines."""

    max_images: int = Field(default=16, ge=1)
    """Most images of one problem."""

    formats: tuple[ImageFormat, ...] = Field(default=("PNG", "JPEG", "WEBP", "BMP"), min_length=1)
    """Encoded formats that are read; told by the bytes, not by a name or a media type."""

    allow_paths: bool = True
    """Whether paths and `file://` URLs are read."""

    root: Path | None = None
    """Folder that relative paths start from; None: the working directory. No fence:
    `allowed_folders` is."""

    allowed_folders: tuple[Path, ...] | None = None
    """Folders that files must lie in after symbolic links are resolved; None: anywhere."""

    allow_urls: bool = False
    """Whether `http://` and `https://` URLs are fetched."""

    url_hosts: tuple[str, ...] = ()
    """Exact host names that may be asked, on any port; `"*"` admits every public host."""

    url_timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds for one URL: name lookup, redirects and body together."""

    url_allow_private: bool = False
    """Whether hosts with private, loopback or reserved addresses may be asked. For test servers
    on this machine and trusted internal networks only."""

    @field_validator("url_hosts")
    @classmethod
    def _lower_case(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if re.search(r"[/@\\\s]|:\d+$", host) and host.count(":") < 2:
                raise ValueError(f"{host!r} is not a host name: leave out scheme, port and path")
        return tuple(host.strip("[]").lower() for host in hosts)

    @model_validator(mode="after")
    def _urls_need_hosts(self) -> Self:
        if self.allow_urls and not self.url_hosts:
            raise ValueError('allow_urls needs url_hosts: name the hosts, or "*" for every one')
        return self


class PixelLimits(BaseModel):
    """The size that a profile's images are brought to; all None: they keep their size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_pixels: int | None = Field(default=None, ge=1)
    """Fewest width x height, in pixels; smaller images are enlarged."""

    max_pixels: int | None = Field(default=None, ge=1)
    """Most width x height, in pixels; larger images are reduced."""

    multiple_of: int | None = Field(default=None, ge=1)
    """Both sides become multiples of this many pixels (patch size x merge size)."""

    @model_validator(mode="after")
    def _some_size_fits(self) -> Self:
        least = max(self.min_pixels or 1, (self.multiple_of or 1) ** 2)
        if self.max_pixels is not None and self.max_pixels < least:
            raise ValueError(
                f"no size fits: max_pixels = {self.max_pixels} is below {least}, the larger of "
                "min_pixels and multiple_of squared: raise max_pixels"
            )
        return self

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) in pixels that an image of `width` x `height` pixels is brought to.

        The sizes are those of Qwen-VL's own `smart_resize`. As there, the limits give way to the
        multiple: enlarging rounds up, and no side gets below one multiple. Where `max_pixels` is
        at least 4 `min_pixels` and 200 `multiple_of` squared and the aspect ratio at most 200,
        fitting twice is the same as fitting once, so a processor with the same limits leaves the
        result alone.
        """
        unit = self.multiple_of or 1
        least = self.min_pixels or 0
        most = self.max_pixels or math.inf
        fitted = round(width / unit) * unit, round(height / unit) * unit
        area = fitted[0] * fitted[1]
        if area > most:
            shrink = math.sqrt(width * height / most)
            fitted = (
                math.floor(width / shrink / unit) * unit,
                math.floor(height / shrink / unit) * unit,
            )
        elif area < least:
            grow = math.sqrt(least / (width * height))
            fitted = (
                math.ceil(width * grow / unit) * unit,
                math.ceil(height * grow / unit) * unit,
            )
        return max(unit, fitted[0]), max(unit, fitted[1])


@dataclass(frozen=True)
class FinalImage:
    """An image exactly as a model's vision encoder is to see it. Equal where its pixels are."""

    image: Image.Image = field(compare=False)
    """RGB, 8 bits. Not to be drawn on: `digest` stands for these pixels."""

    digest: str = field(init=False)
    """SHA-256 over size and pixels, in hexadecimal."""

    def __post_init__(self) -> None:
        if self.image.mode != "RGB":
            raise ImageFormatError(f"a final image is RGB, not {self.image.mode}: use load_image")
        pixels = b"%dx%d:" % self.image.size + self.image.tobytes()
        object.__setattr__(self, "digest", hashlib.sha256(pixels).hexdigest())

    def png(self) -> bytes:
        """The image as a PNG file without metadata. Encoded once, then kept."""
        return self._png

    def data_url(self) -> str:
        """The PNG as a `data:image/png;base64,` URL."""
        return "data:image/png;base64," + base64.b64encode(self._png).decode("ascii")

    @functools.cached_property
    def _png(self) -> bytes:
        buffer = io.BytesIO()
        # Level 1: it travels to a server nearby, where encoding time costs more than bytes.
        self.image.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


DEFAULT_SETTINGS = ImageSettings()
"""What functions here use when given no settings."""


def final_pixels(
    sources: Sequence[ImageSource],
    limits: PixelLimits,
    settings: ImageSettings = DEFAULT_SETTINGS,
) -> tuple[FinalImage, ...]:
    """The images of one problem, loaded and brought to their final size (bicubic), in order.

    Reads files and may wait for URLs; call it in a thread from async code.

    Raises:
        MissingImageError: there is no image, or one of them is not there.
        ImageLimitError: too many images, or one over a limit.
        ImageError: any other reason of `load_image`; the message says which image it was.
    """
    if isinstance(sources, str | bytes | os.PathLike | Image.Image):
        raise ImageSourceError(f"images are a list, not one {type(sources).__name__}: put it in []")
    if not sources:
        raise MissingImageError("the problem has no image: give it at least one")
    if len(sources) > settings.max_images:
        raise ImageLimitError(
            f"{len(sources)} images are more than max_images = {settings.max_images}: "
            "leave some out, or raise max_images"
        )
    finals = []
    for position, source in enumerate(sources, start=1):
        try:
            image = load_image(source, settings)
        except ImageError as error:
            raise type(error)(f"image {position} of {len(sources)}: {error}") from error
        size = limits.fit(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        finals.append(FinalImage(image))
    return tuple(finals)


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
        with _decoding(name), _LOADING:
            source.load()
            source.getexif()
        return _upright_rgb(source, name)
    name, data = read_source(source, settings)
    if len(data) > settings.max_bytes:
        raise ImageLimitError(
            f"{name} has more than max_bytes = {settings.max_bytes:,} bytes: make it smaller, or "
            "raise max_bytes"
        )
    with open_image(data, name, settings) as image:
        check_size(image, name, settings)
        if getattr(image, "is_animated", False):
            raise ImageFormatError(
                f"{name} is animated: save the frame that the policy saw as a PNG and use that"
            )
        with _decoding(name):
            image.load()
        return _upright_rgb(image, name)


def read_source(
    source: str | os.PathLike[str] | bytes, settings: ImageSettings
) -> tuple[str, bytes]:
    """(name for messages, encoded bytes); of a file, at most one byte more than `max_bytes`."""
    if isinstance(source, bytes):
        if not source:
            raise MissingImageError("the image is an empty bytes object: pass a file's bytes")
        return f"image of {len(source):,} bytes", source
    if not isinstance(source, str | os.PathLike):
        raise ImageSourceError(
            f"{type(source).__name__} is no image source: pass a PIL image, a path, a URL or bytes"
        )
    reference = os.fspath(source)
    if not isinstance(reference, str) or not reference.strip():
        raise MissingImageError(f"the image is {reference!r}: name a file, or pass the image")
    scheme = re.match(r"data:|[a-z][a-z0-9+.-]*://", reference, re.IGNORECASE)
    if scheme is None or not isinstance(source, str):
        return _read_file(reference, settings)
    kind = scheme[0].lower()
    if kind == "data:":
        return f"data URL ({len(reference):,} characters)", read_data_url(reference)
    if kind in ("http://", "https://"):
        return describe_url(reference), _fetch(reference, settings)
    if kind == "file://":
        return _read_file(path_of_file_url(reference), settings)
    raise ImageSourceError(
        f"{describe_url(reference)}: {kind} is not understood: download the image first"
    )


def _fetch(url: str, settings: ImageSettings) -> bytes:
    if not settings.allow_urls:
        raise ImageSourceError(
            f"{describe_url(url)}: fetching is off: download the image first, or set allow_urls "
            "and url_hosts"
        )
    return fetch_image_bytes(
        url,
        hosts=settings.url_hosts,
        allow_private=settings.url_allow_private,
        timeout=settings.url_timeout,
        max_bytes=settings.max_bytes,
    )


def _read_file(reference: str, settings: ImageSettings) -> tuple[str, bytes]:
    path = (settings.root or Path()) / reference
    text = str(path)
    name = f"file {text!r}" if len(text) <= 300 else f"file '{text[:150]}...{text[-147:]}'"
    if not settings.allow_paths:
        raise ImageSourceError(f"{name}: paths are off: pass bytes or a data URL, or allow_paths")
    try:
        if settings.allowed_folders is not None:
            path = path.resolve()
            if not any(path.is_relative_to(each.resolve()) for each in settings.allowed_folders):
                folders = ", ".join(map(str, settings.allowed_folders))
                raise ImageSourceError(
                    f"{name} is not in allowed_folders ({folders}): move it there, or add its own"
                )
        with open(path, "rb", opener=_open_at_once) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return name, file.read(settings.max_bytes + 1)
    except ImageSourceError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a NUL in the path. RuntimeError: symbolic links in a circle (Python 3.11).
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise MissingImageError(
            f"{name} cannot be read ({reason}): check the path and what it is relative to "
            f"({settings.root or 'the working directory'}); base64 text needs "
            "'data:image/png;base64,' before it"
        ) from error
    raise MissingImageError(f"{name} is not a regular file: name an image file")


def _open_at_once(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its writer, perhaps for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# Pillow decodes and reads EXIF on first use, not safely from two threads, and one PIL image may
# stand in several rollouts that are scored at once.
_LOADING = threading.Lock()

_FORMATS: dict[ImageFormat, tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile]]] = {
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    "BMP": (re.compile(rb"BM"), BmpImageFile),
}


def open_image(data: bytes, name: str, settings: ImageSettings) -> ImageFile:
    """The image with its header read and no pixel decoded.

    The classes are called directly because `Image.open` issues its warning about large images
    before the size can be seen here, and warnings cannot be held back for one thread only.
    """
    for kind, (signature, open_file) in _FORMATS.items():
        if signature.match(data):
            if kind not in settings.formats:
                break
            with _decoding(name):
                return open_file(io.BytesIO(data))
    raise ImageFormatError(
        f"{name} is not an image of an allowed format ({', '.join(settings.formats)}): check what "
        "it holds, or save it as a PNG"
    )


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
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
            f"{size}, more than max_pixels_decoded = {settings.max_pixels_decoded:,}: make it "
            "smaller, or raise max_pixels_decoded"
        )
    if min(width, height) < settings.min_side:
        raise ImageLimitError(
            f"{size}, and min_side = {settings.min_side}: enlarge it, or leave it out"
        )
    if max(width, height) / min(width, height) > settings.max_aspect_ratio:
        raise ImageLimitError(
            f"{size}, and max_aspect_ratio = {settings.max_aspect_ratio:g}: crop or pad it"
        )


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
    with _decoding(name):
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
