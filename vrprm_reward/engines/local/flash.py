"""Attention of a forward pass on a GPU: one kernel call for each slab, whatever its rows hold.

A call for every segment and layer keeps a GPU waiting for the CPU (benchmarks/results/README.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from vrprm_reward.engines.local.kv_memory import Slab
from vrprm_reward.engines.local.tokens import Ints, Segment


def order(segments: Sequence[Segment]) -> list[int]:
    """Indices of segments in the order that `Flash` needs: slab by slab, branches behind."""
    first: dict[tuple[bool, int], int] = {}
    for index, segment in enumerate(segments):
        first.setdefault(_group(segment), index)
    groups = [_group(segment) for segment in segments]
    return sorted(range(len(segments)), key=lambda i: (groups[i][0], first[groups[i]]))


def _group(segment: Segment) -> tuple[bool, int]:
    return not segment.keep, id(segment.cache.slab)


@dataclass(frozen=True)
class _Call:
    """Neighbouring segments whose sequences lie in one slab."""

    slab: Slab
    keep: bool
    tokens: slice
    """Their tokens in the packed row."""

    places: torch.Tensor
    """Where new keys and values go in the slab, (tokens,); nowhere for branches."""

    queries: torch.Tensor
    """Where each segment begins among the tokens, and the end, (segments + 1,) int32."""

    starts: torch.Tensor
    """Where each sequence begins in the slab, and any number, (segments + 1,) int32."""

    filled: torch.Tensor
    """Tokens of each sequence that are looked at there, (segments,) int32."""

    longest_query: int
    longest: int


class Flash:
    """Attention of one pass over segments in the order of `order`, token-major."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._calls: list[_Call] = []
        first = 0
        for (branches, _), found in groupby(segments, key=_group):
            call = _call(list(found), first, keep=not branches)
            self._calls.append(call)
            first = call.tokens.stop

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """As `BySegment.attend`."""
        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        return self.over(q, torch.stack((k, v)), scaling)(layer)[None]

    def over(
        self,
        query: torch.Tensor,
        new: torch.Tensor,
        scaling: float,
        seen: torch.Tensor | None = None,
    ) -> Callable[[int], torch.Tensor]:
        """Attention over arrays that hold those of one layer after another.

        Args:
            query: (tokens, heads, head_dim).
            new: keys and values to be written and attended to, (2, tokens, key heads, head_dim).
            scaling: of the logits.
            seen: where the output is put, (tokens, heads, head_dim); None: somewhere new.

        Returns:
            A function of a layer's index to the output.
        """
        parts = [(call, query[call.tokens], new[:, call.tokens]) for call in self._calls]

        def attend(layer: int) -> torch.Tensor:
            outputs = [_attended(call, layer, q, kv, scaling) for call, q, kv in parts]
            if seen is None and len(outputs) == 1:
                return outputs[0]
            return torch.cat(outputs, out=seen)

        return attend


def _call(segments: Sequence[Segment], first: int, *, keep: bool) -> _Call:
    slab = segments[0].cache.slab
    lengths = np.array([len(s.ids) for s in segments])
    before = np.array([s.start for s in segments])
    rows = np.array([s.cache.row for s in segments]) * slab.capacity
    ends = np.cumsum(lengths)
    own = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    filled = before + lengths if keep else before
    device = slab.data.device
    return _Call(
        slab,
        keep,
        slice(first, first + int(ends[-1])),
        torch.from_numpy(np.repeat(rows + before, lengths) + own).to(device),
        _int32([0, *ends], device),
        _int32([*rows, 0], device),
        _int32(filled, device),
        # With single queries only, the kernel gives the sums of branches in another shape.
        max(1 if keep else 2, int(lengths.max())),
        int(filled.max()),
    )


def _int32(numbers: Sequence[int] | Ints, device: torch.device) -> torch.Tensor:
    return torch.tensor(np.asarray(numbers, dtype=np.int32), device=device)


def _attended(
    call: _Call, layer: int, query: torch.Tensor, new: torch.Tensor, scaling: float
) -> torch.Tensor:
    both, keys, values = call.slab.layers[layer]
    if not call.keep:
        return _branched(call, query, new, keys, values, scaling)
    both.index_copy_(1, call.places, new)
    return _in_slab(call, query, keys, values, scaling, causal=True)[0]


def _in_slab(
    call: _Call,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scaling: float,
    *,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return varlen(
        query, keys, values, call.queries, call.starts, call.filled,
        call.longest_query, call.longest, scaling, causal,
    )  # fmt: skip


def _branched(
    call: _Call,
    query: torch.Tensor,
    new: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """What branches see of their sequence and of themselves, put together by their weights.

    Nothing is copied, and several may branch off the same sequence. For the sum of two softmaxes
    see section 2.4.1 of FlashAttention-2, arXiv 2307.08691.
    """
    behind, behind_lse = _in_slab(call, query, keys, values, scaling, causal=False)
    own, own_lse = varlen(
        query, new[0], new[1], call.queries, call.queries, None,
        call.longest_query, call.longest_query, scaling, True,
    )  # fmt: skip
    share = torch.sigmoid(behind_lse - own_lse).transpose(0, 1)[..., None]
    return torch.lerp(own, behind, share.to(own.dtype))


def varlen(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    queries: torch.Tensor,
    starts: torch.Tensor,
    filled: torch.Tensor | None,
    longest_query: int,
    longest: int,
    scaling: float,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of sequences of any lengths in one call of torch's flash attention kernel.

    It is called directly: `torch.nn.attention.varlen` is there from torch 2.10 on, but has no
    `seqused_k` before 2.12.

    Args:
        query: (tokens, heads, head_dim).
        keys: (places, key heads, head_dim); `values` alike.
        queries: where each sequence's queries begin, and their end, (n + 1,) int32.
        starts: where each sequence's keys begin in `keys`, (n + 1,) int32; in any order.
        filled: how many keys each sequence has, (n,) int32; None: up to the next start.
        longest_query: most queries of a sequence.
        longest: most keys of a sequence.
        scaling: of the logits.
        causal: whether the last query sees all keys, the one before all but the last, and so on.

    Returns:
        Output (tokens, heads, head_dim), and the log of the sum of exponentials, (heads, tokens)
        float32.
    """
    output, lse, *_ = torch.ops.aten._flash_attention_forward(
        query, keys, values, queries, starts, longest_query, longest, 0.0, causal,
        return_debug_mask=False, scale=scaling, seqused_k=filled,
    )  # fmt: skip
    return output, lse
