"""The language model cut at its attention: what lies between is one start on a GPU.

A pass over few tokens is bound by starting kernels, many in each layer. All but attention are
the same whatever sequences the tokens belong to, so for a number of tokens they are recorded once,
as CUDA graphs, and played again. Attention is started as ever, between them.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

_log = logging.getLogger(__name__)

MOST_TOKENS = 512
"""Tokens of a pass up to which starting kernels takes longer than what they do."""

_RECORDING = threading.Lock()
"""CUDA can record for one at a time in a process."""

_STREAMS: dict[torch.device, Any] = {}
"""Of each GPU, the stream that is recorded on: the memory that pieces share belongs to it."""

COMPUTED_FIRST = 3
"""Passes of a size before it is recorded, which takes longer than a pass and is nothing for sizes
that hardly ever come. One at least: what is recorded must have run before."""

Over = Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor], Callable[[int], torch.Tensor]]
"""Attention over arrays that are the same in all layers: see `Flash.over`."""


def room_for(tokens: int) -> int:
    """So many tokens are recorded for `tokens`: 8, 16, 32, 64, and then multiples of 64."""
    return max(8, 1 << (tokens - 1).bit_length()) if tokens <= 64 else -(-tokens // 64) * 64


class Pieces:
    """Runs the language model of a Qwen3-VL in pieces.

    What is recorded reads the weights where they lie: they may be changed in place, but not
    replaced.

    Args:
        text: the language model; `suits` says whether it can be cut.
        record: whether pieces are recorded, on a GPU. While that goes on, a moment for each size
            of a pass, no other thread of the process may draw random numbers on the GPU or wait
            for all of it.
    """

    def __init__(self, text: Any, *, record: bool) -> None:
        self._text = text
        self._rooms: dict[int, _Room] = {}
        self._records = record
        self._memory: Any = None

    @staticmethod
    def suits(text: Any) -> bool:
        """Whether it is known how to cut this model."""
        plain = getattr(text.config, "quantization_config", None) is None
        return type(text) is Qwen3VLTextModel and plain

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
        if self._records and not room.graphs and room.passes >= COMPUTED_FIRST:
            self._record(room)
        layers = self._text.layers
        scaling = layers[0].self_attn.scaling
        attend = over(room.query[:count], room.new[:, :count], scaling, room.seen[:count])
        for index in range(len(layers)):
            room.play(index)
            attend(index)
        room.play(len(layers))
        room.passes += 1
        return room.hidden[:count]

    def _record(self, room: "_Room") -> None:
        """Record a room; where that cannot be, nothing is recorded any more."""
        try:
            with _RECORDING:
                if self._memory is None:
                    self._memory = torch.cuda.graph_pool_handle()
                room.record(self._memory)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()  # which torch does not do by itself while it records
            room.passes = 0
            if not any(other.graphs for other in self._rooms.values()):
                self._memory = None  # what nobody has used cannot be used again
        except Exception as error:  # noqa: BLE001  computing it does as well
            self._records = False
            for other in self._rooms.values():
                other.graphs.clear()
            cause = error.__context__ or error
            _log.warning("CUDA graphs cannot be used here, so thinking is slower: %r", cause)


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
        device, graphs = self.hidden.device, []
        if device not in _STREAMS:
            _STREAMS[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(_STREAMS[device]):
            for index in range(len(self._text.layers) + 1):
                graph = torch.cuda.CUDAGraph()
                with torch.inference_mode(False):  # the generator's state outlives this
                    graph.capture_begin(pool=memory, capture_error_mode="thread_local")
                try:
                    self._compute(index)
                finally:
                    graph.capture_end()
                graphs.append(graph)
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
        self.query.copy_(self._turned(query))
        self.new[0].copy_(self._turned(key))
        self.new[1].copy_(attention.v_proj(normed).unflatten(-1, heads))
        self.hidden.copy_(hidden)

    def _turned(self, heads: torch.Tensor) -> torch.Tensor:
        """Rotary positions, as `apply_rotary_pos_emb` of transformers, which others replace."""
        first, second = heads.chunk(2, dim=-1)
        crossed = torch.cat((-second, first), dim=-1)
        return heads * self.cos[:, None] + crossed * self.sin[:, None]
