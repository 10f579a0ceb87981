"""How many of the last rollouts could not be scored: more than a limit is to stop a run."""

import threading
from collections.abc import Sequence

from vrprm_reward.rewards.combine import RolloutReward

WINDOW, FEWEST = 64, 16
"""Rollouts that the share is taken of, and how many there have to be before it says anything."""


class MaskedShare:
    """Counts the masked ones among the last rollouts of this process. Threads may share it.

    Not batch by batch: the batch of one process may be so small that one timeout is a large share.
    A copy, as in another process, counts from the beginning.

    Args:
        limit: the largest share that is allowed, in [0, 1].
        setting: what the limit is called where the user sets it.
    """

    def __init__(self, limit: float, setting: str) -> None:
        self._limit = limit
        self._setting = setting
        self._lock = threading.Lock()
        self._last: list[bool] = []

    def count(self, rewards: Sequence[RolloutReward]) -> str | None:
        """Count rollouts that were rewarded together.

        Returns:
            What to stop the run with, as a sentence: some of these are masked, and with them more
            of the last `WINDOW` (or of these, if they are more) than the limit allows. Else None.
        """
        with self._lock:
            self._last += [each.masked for each in rewards]
            self._last = self._last[-max(WINDOW, len(rewards)) :]
            failed, seen = sum(self._last), len(self._last)
        masked = [each for each in rewards if each.masked]
        if not masked or seen < FEWEST or failed <= self._limit * seen:
            return None
        return (
            f"{failed} of the last {seen} rollouts could not be scored, more than "
            f"{self._setting} = {self._limit} allows; the last one: {masked[-1].reason}: "
            f"{masked[-1].detail}"
        )

    def __reduce__(self) -> tuple[type["MaskedShare"], tuple[float, str]]:
        return MaskedShare, (self._limit, self._setting)
