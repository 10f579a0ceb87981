"""The size in pixels that images are brought to."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
