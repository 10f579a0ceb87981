"""Image references -> the bytes of an image file, checked by its header, with no pixel decoded.

For what passes images on instead of looking at them: the client and the HTTP server. The bytes
are the original ones, so that whoever decodes them gets the same pixels.
"""

import base64
import os
from dataclasses import dataclass

from PIL import Image

from vrprm_reward.images.files import opened_image
from vrprm_reward.images.final import FinalImage
from vrprm_reward.images.pixels import load_image
from vrprm_reward.images.settings import DEFAULT_SETTINGS, ImageSettings
from vrprm_reward.types import ImageSource


@dataclass(frozen=True)
class EncodedImage:
    """An image file of an allowed format and size. Its pixels may still prove to be corrupt."""

    data: bytes
    """The file."""

    media_type: str
    """Such as `image/png`."""

    def data_url(self) -> str:
        """The file as a `data:` URL in base64."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"


def encoded_image(source: ImageSource, settings: ImageSettings = DEFAULT_SETTINGS) -> EncodedImage:
    """The file behind an image reference; of a PIL image, a PNG of its upright RGB pixels.

    Reads files and may wait for URLs; call it in a thread from async code.

    Raises:
        MissingImageError: no readable file, nothing at the URL.
        ImageFormatError: not a still image of an allowed format, as far as its header tells.
        ImageLimitError: over the limit on bytes, pixels, sides or aspect ratio.
        ImageSourceError: a kind of source, folder or host that the settings do not allow.
    """
    if isinstance(source, Image.Image):
        return EncodedImage(FinalImage(load_image(source, settings)).png(), "image/png")
    with opened_image(source, settings) as (_, data, image):
        return EncodedImage(data, f"image/{(image.format or 'png').lower()}")


def image_key(source: ImageSource) -> object:
    """Equal for sources that hold the same image, as far as that can be told without reading."""
    if isinstance(source, Image.Image):
        return id(source)
    return os.fspath(source) if isinstance(source, os.PathLike) else source
