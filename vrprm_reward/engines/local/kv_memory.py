"""Memory for keys and values: rows of slabs, so that rows that generate attend in one call."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

ROWS_PER_SLAB = 8
_ROWS_OF_MORE = 64
"""Rows of the second slab of a capacity and of further ones, where keys and values are
token-major: every slab is a call of the kernel there."""

_SMALLEST_CAPACITY = 128


@dataclass(frozen=True)
class CacheShape:
    """What one token takes in a cache."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    token_major: bool = False
    """Whether the heads of a token lie beside one another, as `flash` needs it."""

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.layers * self.heads * self.head_dim * self.dtype.itemsize

    @classmethod
    def of(cls, model: Any) -> "CacheShape":
        """Read off a transformers model."""
        config = model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None)
        head_dim = head_dim or config.hidden_size // config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            heads=config.num_key_value_heads,
            head_dim=head_dim,
            dtype=model.dtype,
            device=model.device,
            token_major=flash_can(model.device, model.dtype, head_dim),
        )


def flash_can(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether torch's flash attention kernel takes keys and values like these."""
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.__version__ >= "2.10"
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim <= 256
        and head_dim % 8 == 0
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class Slab:
    """Some rows of one capacity.

    Args:
        shape: what one token takes.
        capacity: tokens of a row.
        rows: how many.
    """

    def __init__(self, shape: CacheShape, capacity: int, rows: int = ROWS_PER_SLAB) -> None:
        inner = (shape.heads, capacity, shape.head_dim)
        if shape.token_major:
            inner = (capacity, shape.heads, shape.head_dim)
        # Zeros, since what a mask hides is still multiplied by zero, and NaN would survive that.
        stored = torch.zeros(
            (shape.layers, 2, rows, *inner), dtype=shape.dtype, device=shape.device
        )
        self.data = stored.transpose(3, 4) if shape.token_major else stored
        """(layers, 2, rows, heads, capacity, head_dim)."""

        self.layers = [(both, *both) for both in stored.flatten(2, 3)]
        """Of each layer, keys and values together, (2, rows x capacity, heads, head_dim), then
        each of them; the same memory, if token-major: row r begins at r x capacity."""

        self.capacity = capacity
        self.rows = rows
        self.free = list(range(rows))[::-1]


class KVMemory:
    """Hands out rows and takes them back. A slab whose rows are all back is freed.

    Args:
        shape: what one token takes.
        budget: tokens that large slabs keep within.
    """

    def __init__(self, shape: CacheShape, budget: int) -> None:
        self.shape = shape
        self.budget = budget
        self._slabs: dict[int, list[Slab]] = defaultdict(list)

    def take(self, tokens: int) -> tuple[Slab, int]:
        """A row with room for at least `tokens`."""
        capacity = _capacity_for(tokens)
        slabs = self._slabs[capacity]
        slab = next((s for s in slabs if s.free), None)
        if slab is None:
            slab = self._new_slab(capacity)
            slabs.append(slab)
        return slab, slab.free.pop()

    def _new_slab(self, capacity: int) -> Slab:
        """As many rows as are wanted within the budget, or one where memory has only that."""
        rows = ROWS_PER_SLAB
        if self.shape.token_major:
            taken = sum(s.rows * s.capacity for slabs in self._slabs.values() for s in slabs)
            fitting = (self.budget - taken) // capacity
            rows = _ROWS_OF_MORE if self._slabs[capacity] else ROWS_PER_SLAB
            rows = max(1, min(rows, fitting))
        try:
            return Slab(self.shape, capacity, rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            return Slab(self.shape, capacity, 1)

    def give_back(self, slab: Slab, row: int) -> None:
        """Return a row."""
        slab.free.append(row)
        if len(slab.free) == slab.rows:
            self._slabs[slab.capacity].remove(slab)


class KeyValues:
    """Keys and values of one sequence: a row of a slab, exchanged for a larger one as needed."""

    def __init__(self, memory: KVMemory) -> None:
        self._memory = memory
        self.slab, self.row = memory.take(0)

    @property
    def data(self) -> torch.Tensor:
        """(layers, 2, heads, capacity, head_dim)."""
        return self.slab.data[:, :, self.row]

    def reserve(self, tokens: int, keep: int) -> None:
        """Make room for `tokens`, keeping the first `keep`."""
        if tokens <= self.slab.capacity:
            return
        slab, row = self._memory.take(tokens)
        slab.data[:, :, row, :, :keep] = self.data[:, :, :, :keep]
        self.free()
        self.slab, self.row = slab, row

    def copy_from(self, other: "KeyValues", start: int, end: int) -> None:
        """Take over positions [start, end) of another sequence that begins with the same tokens."""
        self.data[:, :, :, start:end] = other.data[:, :, :, start:end]

    def free(self) -> None:
        """Give the row back; the object must not be used any more."""
        self._memory.give_back(self.slab, self.row)


def _capacity_for(tokens: int) -> int:
    """The next of 128, 192, 256, 384, 512, 768, ..."""
    capacity = _SMALLEST_CAPACITY
    while capacity < tokens:
        is_power_of_two = capacity & (capacity - 1) == 0
        capacity = capacity // 2 * 3 if is_power_of_two else capacity // 3 * 4
    return capacity
