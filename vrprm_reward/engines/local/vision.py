"""Images through the vision tower, each distinct one once."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.engines.local.tokens import VisualFeatures
from vrprm_reward.images import FinalImage


class Vision:
    """Encodes images; a cache of bounded size keeps what was encoded.

    Args:
        model: a transformers vision-language model.
        encoder: gives the pixels of an image.
        cache_bytes: bound on the features that are kept; 0 keeps none.
    """

    def __init__(self, model: Any, encoder: PromptEncoder, *, cache_bytes: int) -> None:
        self._model = model
        self._encoder = encoder
        self._limit = cache_bytes
        self._kept: OrderedDict[str, VisualFeatures] = OrderedDict()
        self._bytes = 0
        self.encoded = 0

    def features(self, images: Sequence[FinalImage]) -> VisualFeatures | None:
        """Features of the images of one prompt, one after another; None without images."""
        if not images:
            return None
        found = {image.digest: self._kept.get(image.digest) for image in images}
        new = {i.digest: i for i in images if found[i.digest] is None}
        if new:
            for digest, features in zip(new, self._encode(list(new.values())), strict=True):
                found[digest] = features
                self._keep(digest, features)
        parts = [found[image.digest] for image in images]
        for image in images:
            if image.digest in self._kept:
                self._kept.move_to_end(image.digest)
        present = [part for part in parts if part is not None]
        if len(present) == 1:
            return present[0]
        deep = zip(*(part.deep for part in present), strict=True)
        return VisualFeatures(
            torch.cat([part.rows for part in present]),
            tuple(torch.cat(layer) for layer in deep),
        )

    @torch.inference_mode()
    def _encode(self, images: Sequence[FinalImage]) -> list[VisualFeatures]:
        pixels, grids = self._encoder.pixels(images)
        device = self._model.device
        output = self._model.model.get_image_features(
            pixels.to(device), image_grid_thw=grids.to(device), return_dict=True
        )
        self.encoded += len(images)
        rows = list(output.pooler_output)
        layers = [
            # transformers before 5.19 returns one tensor for all images, later one for each
            list(layer) if isinstance(layer, tuple) else torch.split(layer, [len(r) for r in rows])
            for layer in getattr(output, "deepstack_features", None) or []
        ]
        return [
            VisualFeatures(row, tuple(layer[index] for layer in layers))
            for index, row in enumerate(rows)
        ]

    def _keep(self, digest: str, features: VisualFeatures) -> None:
        size = _bytes(features)
        if size > self._limit:
            return
        self._kept[digest] = features
        self._bytes += size
        while self._bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _bytes(dropped)


def _bytes(features: VisualFeatures) -> int:
    return sum(t.numel() * t.element_size() for t in (features.rows, *features.deep))
