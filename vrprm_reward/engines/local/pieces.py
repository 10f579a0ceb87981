"""The language model cut at its attention: what lies between is one start on a GPU.

A pass over few tokens is bound by starting kernels, some thirty in a layer. All but attention are
the same whatever sequences the tokens belong to, so for a number of tokens they are recorded once,
as CUDA graphs, and played again. Attention is started as ever, between them.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel, apply_rotary_pos_emb

_log = logging.getLogger(__name__)

MOST_TOKENS = 512
"""Tokens of a pass up to which starting kernels takes longer than what they do."""

COMPUTED_FIRST = 3
"""Passes of a size before it is recorded, which takes as long as about two of them. One at least:
what is recorded must have run before."""

Over = Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor], Callable[[int], torch.Tensor]]
"""Attention over arrays that are the same in all layers: see `Flash.over`."""


def room_for(tokens: int) -> int:
    """So many tokens are recorded for `tokens`: 8, 16, 32, 64, and then multiples of 64."""
    return max(8, 1 << (tokens - 1).bit_length()) if tokens <= 64 else -(-tokens // 64) * 64


class Pieces:
    """Runs the language model of a Qwen3-VL in pieces.

    Args:
        text: the language model; `suits` says whether it can be cut.
    """

    def __init__(self, text: Any) -> None:
        self._text = text
        self._rooms: dict[int, _Room] = {}
        self._records = text.device.type == "cuda"
        self._memory = torch.cuda.graph_pool_handle() if self._records else None

    @staticmethod
    def suits(text: Any) -> bool:
        """Whether it is known how to cut this model."""
        return isinstance(text, Qwen3VLTextModel)

    def run(self, embeds: torch.Tensor, positions: torch.Tensor, over: Over) -> torch.Tensor:
        """Push tokens through all layers and the last norm.

        Args:
            embeds: (tokens, hidden), at most `MOST_TOKENS` of them and none of an image.
            positions: rotary positions, (3, 1, tokens).
            over: attention, which also keeps keys and values.

        Returns:
            (tokens, hidden); valid until the next run.
        """
        count = len(embeds)
        size = room_for(count)
        if size not in self._rooms:
            self._rooms[size] = _Room(self._text, size)
        room = self._rooms[size]
        cos, sin = self._text.rotary_emb(embeds[None], positions)
        for buffer, filling in ((room.hidden, embeds), (room.cos, cos[0]), (room.sin, sin[0])):
            buffer[:count] = filling
        if self._records and room.passes >= COMPUTED_FIRST:
            self._record(room)
        room.passes += 1
        layers = self._text.layers
        scaling = layers[0].self_attn.scaling
        attend = over(room.query[:count], room.new[:, :count], scaling, room.seen[:count])
        for index in range(len(layers)):
            room.play(index)
            attend(index)
        room.play(len(layers))
        return room.hidden[:count]

    def _record(self, room: "_Room") -> None:
        """Record what is not recorded yet; where that fails, nothing is recorded any more."""
        if room.graphs:
            return
        try:
            room.record(self._memory)
        except RuntimeError as error:
            self._records = False
            for other in self._rooms.values():
                other.graphs.clear()
            _log.warning("CUDA graphs cannot be used here, so thinking is slower: %s", error)


class _Room:
    """Buffers for so many tokens that all pieces share, and the recorded pieces.

    Tokens that a pass leaves unused are computed like the others, and nobody looks at them.
    """

    def __init__(self, text: Any, tokens: int) -> None:
        self._text = text
        heads, key_heads = text.config.num_attention_heads, text.config.num_key_value_heads
        self._head_dim = text.layers[0].self_attn.head_dim
        zeros = partial(torch.zeros, dtype=text.dtype, device=text.device)
        self.hidden = zeros(tokens, text.config.hidden_size)
        self.cos, self.sin = zeros(tokens, self._head_dim), zeros(tokens, self._head_dim)
        self.query = zeros(tokens, heads, self._head_dim)
        self.new = zeros(2, tokens, key_heads, self._head_dim)
        self.seen = torch.zeros_like(self.query)
        self.passes = 0
        self.graphs: list[torch.cuda.CUDAGraph] = []

    def play(self, index: int) -> None:
        """Piece `index`: from the attention of the layer before it to that of its own."""
        if self.graphs:
            self.graphs[index].replay()
        else:
            self._compute(index)

    def record(self, memory: Any) -> None:
        """Record all pieces, into memory that those of other rooms share."""
        graphs = []
        torch.cuda.synchronize(self.hidden.device)
        stream = torch.cuda.Stream(self.hidden.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            for index in range(len(self._text.layers) + 1):
                graph = torch.cuda.CUDAGraph()
                # Other threads may use the GPU meanwhile.
                graph.capture_begin(pool=memory, capture_error_mode="thread_local")
                try:
                    self._compute(index)
                finally:
                    graph.capture_end()
                graphs.append(graph)
        torch.cuda.synchronize(self.hidden.device)
        self.graphs = graphs

    def _compute(self, index: int) -> None:
        layers, hidden = self._text.layers, self.hidden
        if index > 0:
            before = layers[index - 1]
            hidden = hidden + before.self_attn.o_proj(self.seen.flatten(1))
            hidden = hidden + before.mlp(before.post_attention_layernorm(hidden))
        if index == len(layers):
            self.hidden.copy_(self._text.norm(hidden))
            return
        layer, attention = layers[index], layers[index].self_attn
        normed = layer.input_layernorm(hidden)
        heads = (-1, self._head_dim)
        query = attention.q_norm(attention.q_proj(normed).unflatten(-1, heads))
        key = attention.k_norm(attention.k_proj(normed).unflatten(-1, heads))
        query, key = apply_rotary_pos_emb(query, key, self.cos, self.sin, unsqueeze_dim=1)
        self.query.copy_(query)
        self.new[0].copy_(key)
        self.new[1].copy_(attention.v_proj(normed).unflatten(-1, heads))
        self.hidden.copy_(hidden)
