"""What goes through the language model in one forward pass: pieces of sequences, and images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vrprm_reward.engines.local.kv_memory import KeyValues

Ints = npt.NDArray[np.int64]


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
