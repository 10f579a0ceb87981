"""Images of a report: inside the page while they fit, else as links."""

import base64
import io
import os
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from PIL import Image

from vrprm_reward.errors import ImageError, MissingImageError
from vrprm_reward.images import ImageSettings, load_image
from vrprm_reward.images.encoded import encoded_image
from vrprm_reward.jobs.fields import path_of_reference, unusable_reference

ImageMode = Literal["embed", "link"]

LARGEST_SIDE = 768
"""Pixels; larger images are made smaller, for the page only."""

SMALL_ENOUGH = 48 * 1024
"""Bytes; files up to here are embedded as they are."""


class Pictures:
    """Numbers images as they come, each distinct reference once.

    A page asks nobody, so pictures at web addresses are not fetched; `file://` names a file.

    Args:
        root: where relative references start: the folder of the scores.
        page: the folder of the page, for links.
        mode: embed them, or link them.
        most_bytes: when so much is embedded, further images are linked.
    """

    def __init__(self, root: Path, page: Path, mode: ImageMode, most_bytes: int) -> None:
        self._settings = ImageSettings(root=root)
        self._page = page
        self._mode = mode
        self._most_bytes = most_bytes
        self._numbers: dict[str, int] = {}
        self.values: list[tuple[str | None, str]] = []
        """Source (None where the image cannot be had) and name of each."""
        self.embedded_bytes = 0
        self.linked = 0
        self.missing = 0

    def number(self, reference: str) -> int:
        """The number of an image, which is read when it comes for the first time."""
        if reference not in self._numbers:
            self._numbers[reference] = len(self.values)
            self.values.append((self._source(reference), _name(reference)))
        return self._numbers[reference]

    def _source(self, reference: str) -> str | None:
        inside = reference[:5].lower() == "data:"
        try:
            if (self._mode == "link" or self.embedded_bytes >= self._most_bytes) and not inside:
                return self._linked(reference)
            url = self._embedded(reference)
        except ImageError:
            self.missing += 1
            return None
        self.embedded_bytes += len(url)
        return url

    def _linked(self, reference: str) -> str:
        """A link to a file. Raises `ImageError`."""
        if problem := unusable_reference(reference, self._settings):
            raise MissingImageError(problem)
        self.linked += 1
        path = path_of_reference(reference, self._settings)
        return quote(os.path.relpath(path.resolve(), self._page.resolve()))

    def _embedded(self, reference: str) -> str:
        encoded = encoded_image(reference, self._settings)
        if len(encoded.data) <= SMALL_ENOUGH and encoded.media_type != "image/bmp":
            return encoded.data_url()
        image = load_image(reference, self._settings)
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=82)
        return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _name(reference: str) -> str:
    if reference[:5].lower() == "data:":
        return "image in the row"
    name = Path(reference).name
    return unquote(name) if reference[:7].lower() == "file://" else name
