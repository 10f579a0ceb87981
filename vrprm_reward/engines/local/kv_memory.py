"""Memory for keys and values: rows of slabs, so that rows that generate attend in one call."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

ROWS_PER_SLAB = 8
_SMALLEST_CAPACITY = 128


@dataclass(frozen=True)
class CacheShape:
    """What one token takes in a cache."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.layers * self.heads * self.head_dim * self.dtype.itemsize

    @classmethod
    def of(cls, model: Any) -> "CacheShape":
        """Read off a transformers model."""
        config = model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None)
        return cls(
            layers=config.num_hidden_layers,
            heads=config.num_key_value_heads,
            head_dim=head_dim or config.hidden_size // config.num_attention_heads,
            dtype=model.dtype,
            device=model.device,
        )


class Slab:
    """Some rows of one capacity: (layers, 2, rows, heads, capacity, head_dim)."""

    def __init__(self, shape: CacheShape, capacity: int) -> None:
        size = (shape.layers, 2, ROWS_PER_SLAB, shape.heads, capacity, shape.head_dim)
        # Zeros, since what a mask hides is still multiplied by zero, and NaN would survive that.
        self.data = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.capacity = capacity
        self.free = list(range(ROWS_PER_SLAB))[::-1]


class KVMemory:
    """Hands out rows and takes them back. A slab whose rows are all back is freed."""

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self._slabs: dict[int, list[Slab]] = defaultdict(list)

    def take(self, tokens: int) -> tuple[Slab, int]:
        """A row with room for at least `tokens`."""
        capacity = _capacity_for(tokens)
        slabs = self._slabs[capacity]
        slab = next((s for s in slabs if s.free), None)
        if slab is None:
            slab = Slab(self.shape, capacity)
            slabs.append(slab)
        return slab, slab.free.pop()

    def give_back(self, slab: Slab, row: int) -> None:
        """Return a row."""
        slab.free.append(row)
        if len(slab.free) == ROWS_PER_SLAB:
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
