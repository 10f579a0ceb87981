"""Image references -> final pixels, under limits: the one way by which every engine gets them.

What leaves `final_pixels` is upright, opaque, 8-bit RGB of its final size, so that two engines
that take the same problem see the same pixels. Everything that can be refused is refused before
pixels are decoded, and no Pillow setting of the process is changed.
"""

from vrprm_reward.images.final import FinalImage, final_pixels
from vrprm_reward.images.pixels import load_image
from vrprm_reward.images.settings import DEFAULT_SETTINGS, ImageFormat, ImageSettings
from vrprm_reward.images.sizes import PixelLimits

__all__ = [
    "DEFAULT_SETTINGS",
    "FinalImage",
    "ImageFormat",
    "ImageSettings",
    "PixelLimits",
    "final_pixels",
    "load_image",
]
