"""One forward pass over pieces of many sequences, without padding.

A batch is one long row: the tokens of all segments one after another. Every layer but attention
treats tokens alone, so nothing there knows of segments; the attention function below runs each
segment against the keys and values of its own sequence, which are written in place.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from vrprm_reward.engines.local.kv_memory import ROWS_PER_SLAB, CacheShape, KeyValues, Slab

Ints = npt.NDArray[np.int64]

ATTENTION = "vrprm_packed"


@dataclass(frozen=True)
class Segment:
    """Tokens to push through the model: positions [start, start + len(ids)) of a sequence."""

    cache: KeyValues
    """The sequence's cache, of which the first `start` positions are filled."""

    start: int
    ids: Ints
    """Token ids, (n,)."""

    positions: Ints
    """Rotary positions, (3, n)."""

    visual: Ints
    """Per token, the row of `features` that stands there, or -1 for text, (n,)."""

    features: "VisualFeatures | None"
    keep: bool
    """Whether the new keys and values are written into the cache. A segment that is not kept
    leaves the cache as it is, so several may branch off the same one in one pass."""

    logits: bool
    """Whether the logits after the last token are wanted."""


@dataclass(frozen=True)
class VisualFeatures:
    """What the vision tower says of the images of one prompt, one row per visual token."""

    rows: torch.Tensor
    """(visual tokens, hidden)."""

    deep: tuple[torch.Tensor, ...]
    """Features added in the first layers (deepstack), each (visual tokens, hidden)."""


@dataclass(frozen=True)
class _Group:
    """Single tokens of rows of one slab: they attend in one call over the slab."""

    slab: Slab
    rows: torch.Tensor
    """Rows that take part, (r,)."""

    places: torch.Tensor
    """Their places in the packed row, (r,)."""

    ends: torch.Tensor
    """Position of each token in its sequence, (r,)."""

    mask: torch.Tensor
    """(rows of the slab, 1, 1, longest) booleans. Rows that take no part see one token, since a
    row that sees nothing would be NaN."""


class _Plan:
    """The segments of one pass as attention needs them."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self._device = device
        self._masks: dict[tuple[int, int], torch.Tensor] = {}
        self.alone: list[tuple[int, Segment]] = []
        singles: dict[int, list[tuple[int, Segment]]] = defaultdict(list)
        place = 0
        for segment in segments:
            if len(segment.ids) == 1 and segment.keep:
                singles[id(segment.cache.slab)].append((place, segment))
            else:
                self.alone.append((place, segment))
            place += len(segment.ids)
        self.groups = [self._group(found) for found in singles.values()]

    def mask(self, start: int, count: int) -> torch.Tensor:
        """(count, start + count) booleans: token i sees everything up to itself."""
        if (start, count) not in self._masks:
            full = torch.ones(count, start + count, dtype=torch.bool, device=self._device)
            self._masks[start, count] = full.tril(start)
        return self._masks[start, count]

    def _group(self, found: list[tuple[int, Segment]]) -> _Group:
        slab = found[0][1].cache.slab
        ends = [segment.start for _, segment in found]
        rows = torch.tensor([segment.cache.row for _, segment in found], device=self._device)
        last = torch.zeros(ROWS_PER_SLAB, dtype=torch.long, device=self._device)
        last[rows] = torch.tensor(ends, device=self._device)
        seen = torch.arange(max(ends) + 1, device=self._device) <= last[:, None]
        return _Group(
            slab,
            rows,
            torch.tensor([place for place, _ in found], device=self._device),
            last[rows],
            seen[:, None, None],
        )


def _packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  transformers' signature
    *,
    scaling: float,
    plan: _Plan,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, heads, tokens, dim), key and value (1, kv heads, tokens, dim)."""
    shared = query.shape[1] != key.shape[1]
    output = torch.empty_like(query)
    for group in plan.groups:
        keys, values = group.slab.data[module.layer_idx]
        keys[group.rows, :, group.ends] = key[0, :, group.places].transpose(0, 1)
        values[group.rows, :, group.ends] = value[0, :, group.places].transpose(0, 1)
        longest = group.mask.shape[-1]
        q = query.new_zeros(ROWS_PER_SLAB, query.shape[1], 1, query.shape[3])
        q[group.rows, :, 0] = query[0, :, group.places].transpose(0, 1)
        seen = scaled_dot_product_attention(
            q,
            keys[:, :, :longest],
            values[:, :, :longest],
            attn_mask=group.mask,
            scale=scaling,
            enable_gqa=shared,
        )
        output[0, :, group.places] = seen[group.rows, :, 0].transpose(0, 1)
    for place, segment in plan.alone:
        count, start = len(segment.ids), segment.start
        end, stop = start + count, place + count
        q, k, v = query[:, :, place:stop], key[:, :, place:stop], value[:, :, place:stop]
        stored = segment.cache.data[module.layer_idx]
        if segment.keep:
            stored[0, :, start:end] = k[0]
            stored[1, :, start:end] = v[0]
            k, v = stored[None, 0, :, :end], stored[None, 1, :, :end]
        elif start:
            k = torch.cat([stored[None, 0, :, :start], k], dim=2)
            v = torch.cat([stored[None, 1, :, :start], v], dim=2)
        from_scratch = start == 0 and count > 1
        output[:, :, place:stop] = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if count == 1 or from_scratch else plan.mask(start, count),
            is_causal=from_scratch,
            scale=scaling,
            enable_gqa=shared,
        )
    return output.transpose(1, 2), None


AttentionInterface.register(ATTENTION, _packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)


class PackedModel:
    """Runs segments through the language model of a transformers checkpoint."""

    def __init__(self, model: Any) -> None:
        self._model = model
        model.model.language_model.config._attn_implementation = ATTENTION
        self.shape = CacheShape.of(model)

    @torch.inference_mode()
    def run(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Push segments through. Returns float32 logits of those that want them, (k, vocabulary).

        Tokens of a segment see the filled part of their cache and one another, causally.
        """
        device = self.shape.device
        ids = torch.from_numpy(np.concatenate([s.ids for s in segments])).to(device)
        positions = np.concatenate([s.positions for s in segments], axis=1)
        embeds = self._model.get_input_embeddings()(ids[None])
        visual = self._place_images(segments, embeds)
        hidden = self._model.model.language_model(
            inputs_embeds=embeds,
            position_ids=torch.from_numpy(positions)[:, None].to(device),
            use_cache=False,
            plan=_Plan(segments, device),
            **visual,
        ).last_hidden_state[0]
        ends = np.cumsum([len(s.ids) for s in segments]) - 1
        wanted = [int(end) for end, s in zip(ends, segments, strict=True) if s.logits]
        logits: torch.Tensor = self._model.lm_head(hidden[wanted]).float()
        return logits

    def _place_images(self, segments: Sequence[Segment], embeds: torch.Tensor) -> dict[str, Any]:
        """Put visual features in the place of image tokens; what deepstack needs is returned."""
        visual = np.concatenate([s.visual for s in segments])
        places = torch.from_numpy(visual >= 0).to(embeds.device)
        rows, deep = [], []
        for segment in segments:
            chosen = segment.visual[segment.visual >= 0]
            if len(chosen) == 0:
                continue
            assert segment.features is not None
            index = torch.from_numpy(chosen).to(embeds.device)
            rows.append(segment.features.rows[index])
            deep.append([layer[index] for layer in segment.features.deep])
        if not rows:
            return {}
        embeds[0, places] = torch.cat(rows).to(embeds.dtype)
        if not deep[0]:
            return {}
        layers = [torch.cat(parts) for parts in zip(*deep, strict=True)]
        return {"visual_pos_masks": places[None], "deepstack_visual_embeds": layers}
