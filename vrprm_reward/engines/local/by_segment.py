"""Attention of a forward pass, one call for each segment: for CPUs, and for float32."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

from vrprm_reward.engines.local.kv_memory import CacheShape, Slab
from vrprm_reward.engines.local.tokens import Segment


class BySegment:
    """Attention of one pass, segment by segment; single tokens of one slab together.

    On a CPU nothing else is needed. On a GPU it starts many small kernels, and is there for what
    `flash` cannot do.
    """

    def __init__(self, segments: Sequence[Segment], shape: CacheShape) -> None:
        self._shape = shape
        self._hidden: dict[tuple[int, int], torch.Tensor] = {}
        self.alone: list[tuple[int, Segment]] = []
        singles: dict[int, list[tuple[int, Segment]]] = defaultdict(list)
        place = 0
        for segment in segments:
            if len(segment.ids) == 1 and segment.keep:
                singles[id(segment.cache.slab)].append((place, segment))
            else:
                self.alone.append((place, segment))
            place += len(segment.ids)
        self.groups = [_Group(found, shape) for found in singles.values()]

    def hidden(self, start: int, count: int) -> torch.Tensor:
        """(count, start + count): token i sees everything up to itself, the rest is -inf.

        Numbers, not booleans: attention would turn those into numbers in every layer.
        """
        if (start, count) not in self._hidden:
            seen = torch.full(
                (count, start + count),
                -torch.inf,
                dtype=self._shape.dtype,
                device=self._shape.device,
            )
            self._hidden[start, count] = seen.triu(start + 1)
        return self._hidden[start, count]

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
        output = torch.empty_like(query.transpose(1, 2))
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        for group in self.groups:
            output[0].index_copy_(0, group.places, group.attend(layer, q, k, v, scaling))
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
            output[:, place:stop] = scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=None if count == 1 or from_scratch else self.hidden(start, count),
                is_causal=from_scratch,
                scale=scaling,
                enable_gqa=shared,
            ).transpose(1, 2)
        return output


class _Group:
    """Single tokens of rows of one slab: they attend in one call over the rows between them."""

    def __init__(self, found: Sequence[tuple[int, Segment]], shape: CacheShape) -> None:
        self._slab: Slab = found[0][1].cache.slab
        rows = [segment.cache.row for _, segment in found]
        ends = [segment.start for _, segment in found]
        first, count = min(rows), max(rows) + 1 - min(rows)
        self._rows = slice(first, first + count)
        self._longest = max(ends) + 1
        places = [place for place, _ in found]
        asks = [places[0]] * count
        last = [0] * count
        for place, row, end in zip(places, rows, ends, strict=True):
            asks[row - first], last[row - first] = place, end

        def long(numbers: Sequence[int]) -> torch.Tensor:
            return torch.tensor(numbers, device=shape.device)

        self.places = long(places)
        """Places of the tokens in the packed row, (r,)."""

        self._asks = long(asks)
        """The token that asks in each row; in one that takes no part, some other, whose answer
        nobody reads: it sees one token, since a row that sees nothing would be NaN."""

        self._answers = self.places.new_tensor(rows) - first
        heads = torch.arange(shape.heads, device=shape.device)
        slots = (long(rows)[:, None] * shape.heads + heads) * self._slab.capacity
        self._slots = (slots + long(ends)[:, None]).flatten()
        """Where the slab keeps what each head of each token says, (r x key heads,)."""

        unseen = torch.arange(self._longest, device=shape.device) > long(last)[:, None]
        hidden = torch.zeros(unseen.shape, dtype=shape.dtype, device=shape.device)
        self._hidden = hidden.masked_fill_(unseen, -torch.inf)[:, None, None]
        """(rows, 1, 1, longest)."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Keep the tokens' keys and values, and attend.

        Args:
            layer: index of the layer.
            query: of all tokens of the pass, (tokens, heads, head_dim).
            key: (tokens, key heads, head_dim); `value` alike.
            scaling: of the logits.

        Returns:
            (r, heads, head_dim), in the order of `places`.
        """
        size = query.shape[-1]
        kept = self._slab.data[layer]
        for stored, new in zip(kept, (key, value), strict=True):
            flat = new.index_select(0, self.places).reshape(-1, size)
            stored.view(-1, size).index_copy_(0, self._slots, flat)
        keys, values = kept[:, self._rows, :, : self._longest]
        asked = query.index_select(0, self._asks).reshape(keys.shape[0], keys.shape[1], -1, size)
        seen = _attention(asked, keys, values, self._hidden, scaling)
        return seen.flatten(1, 2).index_select(0, self._answers)


def _attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    hidden: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Single tokens over long rows: bound by reading keys and values.

    Plain products read them once, which torch's kernel for CPUs, made for many queries, does not;
    but in half precision they would round what that kernel adds up in float32.

    Args:
        query: (rows, key heads, queries of a key head, head_dim).
        keys: (rows, key heads, longest, head_dim); `values` alike.
        hidden: added to the logits, (rows, 1, 1, longest).
        scaling: of the logits.

    Returns:
        As `query`.
    """
    if query.dtype.itemsize < torch.float32.itemsize:
        return scaled_dot_product_attention(query, keys, values, attn_mask=hidden, scale=scaling)
    logits = torch.matmul(keys, (query * scaling).transpose(-1, -2)).transpose(-1, -2)
    return torch.matmul((logits + hidden).softmax(-1), values)
