"""The images of one problem as a model's vision encoder is to see them."""

import base64
import functools
import hashlib
import io
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from vrprm_reward.errors import (
    ImageError,
    ImageFormatError,
    ImageLimitError,
    ImageSourceError,
    MissingImageError,
)
from vrprm_reward.images.pixels import load_image
from vrprm_reward.images.settings import DEFAULT_SETTINGS, ImageSettings
from vrprm_reward.images.sizes import PixelLimits
from vrprm_reward.types import ImageSource

# Pillow keeps notes on an image while it saves it, and rollouts share images.
_ENCODING = threading.Lock()


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
        with _ENCODING:
            self.image.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


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
    check_sources(sources, settings)
    finals = []
    for position, source in enumerate(sources, start=1):
        try:
            finals.append(final_image(source, limits, settings))
        except ImageError as error:
            raise with_position(error, position, len(sources)) from error
    return tuple(finals)


def final_image(source: ImageSource, limits: PixelLimits, settings: ImageSettings) -> FinalImage:
    """One image, loaded and brought to its final size. Raises `ImageError`, as `load_image`."""
    image = load_image(source, settings)
    size = limits.fit(*image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return FinalImage(image)


def with_position(error: ImageError, position: int, count: int) -> ImageError:
    """The same error, which also says the how-manieth image it was, counted from 1."""
    return type(error)(f"image {position} of {count}: {error}")


def check_sources(sources: Sequence[ImageSource], settings: ImageSettings) -> None:
    """See that there are images, and not too many. Raises `ImageError`."""
    if isinstance(sources, str | bytes | os.PathLike | Image.Image):
        raise ImageSourceError(f"images are a list, not one {type(sources).__name__}: put it in []")
    if not sources:
        raise MissingImageError("the problem has no image: give it at least one")
    if len(sources) > settings.max_images:
        raise ImageLimitError(
            f"{len(sources)} images are more than max_images = {settings.max_images}: "
            "leave some out, or raise max_images"
        )
