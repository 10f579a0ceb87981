"""Sequences of all shares under one budget of cached tokens."""

from collections.abc import Hashable

from vrprm_reward.engines.local.kv_memory import CacheShape, KeyValues, KVMemory
from vrprm_reward.engines.local.sequences import Job, Sequence, common_prefix, longer_prefix
from vrprm_reward.engines.local.tokens import Ints


class KVPool:
    """Hands out sequences and drops old ones when the budget is used up.

    Args:
        shape: what one token takes.
        budget: tokens that may be cached at one time.
    """

    def __init__(self, shape: CacheShape, *, budget: int) -> None:
        self._memory = KVMemory(shape, budget)
        self._sequences: dict[Hashable, Sequence] = {}
        self._clock = 0
        self.reserved = 0

    @property
    def budget(self) -> int:
        """Tokens that may be cached at one time."""
        return self._memory.budget

    @budget.setter
    def budget(self, tokens: int) -> None:
        self._memory.budget = tokens

    def get(self, share: Hashable) -> Sequence | None:
        """The sequence of a share, if it has one."""
        return self._sequences.get(share)

    def longest_known(self, keys: Ints, share: Hashable) -> int:
        """How much of a prompt is computed already, for its own share or any other."""
        own = self._sequences.get(share)
        best = common_prefix(own.known, keys) if own is not None else 0
        for other in self._sequences.values():
            best = longer_prefix(other.known, keys, best)
        return best

    def admit(self, job: Job) -> Sequence | None:
        """The job's sequence with room for it; None while there is no room.

        Released sequences give way first, oldest first. An unreleased idle one gives way only to
        a share that has begun already, so that shares that are at work never lose what they have
        to newcomers.
        """
        sequence = self._sequences.get(job.share)
        extra = job.need - (sequence.reserved if sequence else 0)
        if extra > 0 and not self._make_room(extra, sequence):
            return None
        if sequence is None:
            sequence = Sequence(job.share, KeyValues(self._memory))
            self._sequences[job.share] = sequence
        if extra > 0:
            sequence.reserved += extra
            self.reserved += extra
        self.touch(sequence)
        return sequence

    def has_room(self, tokens: int) -> bool:
        """Whether a newcomer with so many tokens fits once released sequences are dropped."""
        held = sum(s.reserved for s in self._sequences.values() if s.busy or not s.released)
        return held + tokens <= self.budget

    def touch(self, sequence: Sequence) -> None:
        """Note that a sequence was used just now."""
        self._clock += 1
        sequence.used = self._clock

    def fill_from_others(self, sequence: Sequence, job: Job) -> None:
        """Let `sequence` hold as much of the job's prompt as it or any other has computed."""
        keys = job.prompt.keys
        have = common_prefix(sequence.known, keys)
        best, source = have, None
        for other in self._sequences.values():
            shared = longer_prefix(other.known, keys, best) if other is not sequence else best
            if shared > best:
                best, source = shared, other
        best = min(best, len(keys) - 1)
        sequence.cache.reserve(len(keys), keep=have)
        if source is not None and best > have:
            sequence.cache.copy_from(source.cache, have, best)
            self.touch(source)
        sequence.keys, sequence.filled = keys, best

    def release(self, share: Hashable) -> None:
        """The share wants nothing more; what it has may still serve as a prefix for others."""
        sequence = self._sequences.get(share)
        if sequence is not None:
            sequence.released = True

    def take_back(self, job: Job) -> None:
        """Drop the sequence that a job fills; the job is as it was before it began."""
        assert job.sequence is not None
        self._drop(job.sequence)
        job.sequence, job.done, job.behind = None, 0, None
        job.written.clear()

    def clear_idle(self) -> None:
        """Drop every sequence that nobody is using now."""
        for sequence in [s for s in self._sequences.values() if not s.busy]:
            self._drop(sequence)

    def _make_room(self, extra: int, for_sequence: Sequence | None) -> bool:
        idle = [s for s in self._sequences.values() if not s.busy and s is not for_sequence]
        released = sorted((s for s in idle if s.released), key=lambda s: s.used)
        waiting = sorted((s for s in idle if not s.released), key=lambda s: s.used)
        for victim in (*released, *(waiting if for_sequence is not None else ())):
            if self.reserved + extra <= self.budget:
                return True
            self._drop(victim)
        alone = all(sequence is for_sequence for sequence in self._sequences.values())
        return alone or self.reserved + extra <= self.budget

    def _drop(self, sequence: Sequence) -> None:
        del self._sequences[sequence.share]
        sequence.cache.free()
        self.reserved -= sequence.reserved
