"""Attention of a forward pass, one call for each segment: for CPUs, and for float32."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from vrprm_reward.engines.local.kv_memory import Slab
from vrprm_reward.engines.local.tokens import Segment


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


class BySegment:
    """Attention of one pass, segment by segment; single tokens of one slab together.

    On a CPU nothing else is needed. On a GPU it starts many small kernels, and is there for what
    `flash` cannot do.
    """

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
        last = torch.zeros(slab.rows, dtype=torch.long, device=self._device)
        last[rows] = torch.tensor(ends, device=self._device)
        seen = torch.arange(max(ends) + 1, device=self._device) <= last[:, None]
        return _Group(
            slab,
            rows,
            torch.tensor([place for place, _ in found], device=self._device),
            last[rows],
            seen[:, None, None],
        )

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Write new keys and values where they belong, and attend.

        Args:
            layer: index of the layer.
            query: (1, heads, tokens, head_dim).
            key: (1, key heads, tokens, head_dim); `value` alike.
            scaling: of the logits.

        Returns:
            (1, tokens, heads, head_dim).
        """
        shared = query.shape[1] != key.shape[1]
        output = torch.empty_like(query)
        for group in self.groups:
            keys, values = group.slab.data[layer]
            keys[group.rows, :, group.ends] = key[0, :, group.places].transpose(0, 1)
            values[group.rows, :, group.ends] = value[0, :, group.places].transpose(0, 1)
            longest = group.mask.shape[-1]
            q = query.new_zeros(group.slab.rows, query.shape[1], 1, query.shape[3])
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
        for place, segment in self.alone:
            count, start = len(segment.ids), segment.start
            end, stop = start + count, place + count
            q, k, v = query[:, :, place:stop], key[:, :, place:stop], value[:, :, place:stop]
            stored = segment.cache.data[layer]
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
                attn_mask=None if count == 1 or from_scratch else self.mask(start, count),
                is_causal=from_scratch,
                scale=scaling,
                enable_gqa=shared,
            )
        return output.transpose(1, 2)
