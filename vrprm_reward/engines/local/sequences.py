"""What is kept between forward passes: jobs, and the sequences whose keys and values are reused."""

from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from vrprm_reward.engines.local.encode import EncodedPrompt
from vrprm_reward.engines.local.kv_memory import KeyValues
from vrprm_reward.engines.local.tokens import Ints, VisualFeatures

_NUMBERS = count()


def common_prefix(first: Ints, second: Ints) -> int:
    """How many leading tokens two sequences share."""
    shorter = min(len(first), len(second))
    differ = first[:shorter] != second[:shorter]
    return int(differ.argmax()) if differ.any() else shorter


WORTH_SHARING = 16
"""Shared tokens from which on copying keys and values beats computing them again."""


def longer_prefix(known: Ints, keys: Ints, than: int) -> int:
    """As `common_prefix` where it beats `than` by what is worth sharing, else `than`.

    Looks at a single token first, since nearly always the answer is no.
    """
    probe = than + WORTH_SHARING - 1
    if len(known) <= probe or len(keys) <= probe or known[probe] != keys[probe]:
        return than
    shared = common_prefix(known, keys)
    return shared if shared >= than + WORTH_SHARING else than


@dataclass(eq=False)
class Sequence:
    """Tokens whose keys and values are there, for one share (a rollout)."""

    share: Hashable
    cache: KeyValues
    keys: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    filled: int = 0
    """How many of `keys` are in the cache."""

    writer: "Job | None" = None
    """The job that is extending this sequence."""

    readers: int = 0
    """Jobs that branch off this sequence without changing it."""

    reserved: int = 0
    """Tokens counted against the budget."""

    released: bool = False
    used: int = 0
    """When it was last used, for eviction of the oldest."""

    @property
    def busy(self) -> bool:
        """Whether its cache must not be changed or dropped."""
        return self.writer is not None or self.readers > 0

    @property
    def known(self) -> Ints:
        """Keys of the filled part."""
        return self.keys[: self.filled]


@dataclass(eq=False)
class Job:
    """One prompt that waits for its answer. `max_tokens` None: a judgement."""

    prompt: EncodedPrompt
    share: Hashable
    max_tokens: int | None = None
    stop: str | None = None
    future: Future[Any] = field(default_factory=Future)
    number: int = field(default_factory=lambda: next(_NUMBERS))
    rank: tuple[int, int] = (0, 0)
    """Order of service: first come, first served, unless the scheduler must not look at time."""

    sequence: Sequence | None = None
    keep: bool = True
    """Whether its tokens stay in the sequence (a writer) or not (a branch)."""

    done: int = 0
    """Prompt tokens computed or found in the cache."""

    behind: "tuple[Job, int] | None" = None
    """The job that is computing a prefix of this one, and how many tokens of it they share."""

    features: VisualFeatures | None = None
    written: list[int] = field(default_factory=list)
    """Generated tokens; the last one is not yet in the cache."""

    def __post_init__(self) -> None:
        self.rank = (0, self.number)

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def generates(self) -> bool:
        """Whether text is wanted rather than a judgement."""
        return self.max_tokens is not None

    @property
    def need(self) -> int:
        """Tokens of cache that this job may come to fill."""
        return len(self.prompt) + (self.max_tokens or 0)
