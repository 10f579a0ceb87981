"""What an attack did to scores: how far they moved, and which verdicts turned.

Only steps that correspond are compared. A pair of steps before and after an edit has one
probability on each side: the least of its steps, since a claim cut in two holds if both halves do,
and two claims in one step hold if both do.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean, stdev
from typing import Any

from vrprm_reward.evaluation.metrics import OFFICIAL
from vrprm_reward.evaluation.robustness_edits import Pair
from vrprm_reward.rewards.aggregate import AGGREGATIONS, aggregate

SHIFT_ALLOWED = 0.01
"""An edit that keeps correctness may raise scores by so much on average."""

RAISED_ALLOWED = 0.05
"""Of the steps that failed before such an edit, so many may pass behind it."""

PASSED_ALLOWED = 0.5
"""Of the steps that passed before an edit makes them wrong, so many may still pass. Some are right
by chance all the same: another picture may have as many circles. Of steps that say nothing any
more, so many of all."""


@dataclass
class Shift:
    """Figures over the rollouts that one attack was made on."""

    rollouts: int = 0
    """Those that are scored before and after; once for each edit that is counted here."""

    unscored: Counter[str] = field(default_factory=Counter)
    """Those that are scored before and not after, by reason."""

    impossible: int = 0
    """Those that the edit cannot be made of."""

    steps: int = 0
    """Pairs of steps that are compared."""

    failed_before: int = 0
    raised: int = 0
    """Of these, so many pass after the edit."""

    lowered: int = 0
    """Of the others, so many fail after it."""

    _p_shift: float = 0.0
    _p_moved: float = 0.0
    _shift_of_failed: float = 0.0
    _score_shifts: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _earned: dict[str, float] = field(default_factory=lambda: dict.fromkeys(AGGREGATIONS, 0.0))

    def add(
        self,
        number: int,
        pairs: Sequence[Pair],
        before: Sequence[float],
        after: Sequence[float],
    ) -> None:
        """Count one rollout.

        Args:
            number: names the original; several edits of it are not independent.
            pairs: which of its steps correspond.
            before: probabilities of all of its steps before the edit.
            after: those of all steps behind it.
        """
        self.rollouts += 1
        total = 0.0
        for pair in pairs:
            old = min(before[index] for index in pair.before)
            new = min(after[index] for index in pair.after)
            total += new - old
            self.steps += 1
            self._p_moved += abs(new - old)
            if old < OFFICIAL:
                self.failed_before += 1
                self.raised += new >= OFFICIAL
                self._shift_of_failed += new - old
            else:
                self.lowered += new < OFFICIAL
        self._p_shift += total
        self._score_shifts[number].append(total / len(pairs))
        for rule in AGGREGATIONS:
            self._earned[rule] += aggregate(after, rule) - aggregate(before, rule)

    @property
    def passed_before(self) -> int:
        """Pairs that passed before the edit."""
        return self.steps - self.failed_before

    @property
    def score_shift(self) -> float | None:
        """Mean over rollouts of how much the mean probability of what is compared rose."""
        return fmean(chain(*self._score_shifts.values())) if self.rollouts else None

    @property
    def score_shift_error(self) -> float | None:
        """Standard error of that mean; None for fewer than two originals.

        Where several edits of a rollout are counted, their mean is one observation.
        """
        each = [fmean(shifts) for shifts in self._score_shifts.values()]
        return stdev(each) / math.sqrt(len(each)) if len(each) > 1 else None

    @property
    def p_shift(self) -> float | None:
        """Mean over all pairs of how much the probability rose."""
        return _share(self._p_shift, self.steps)

    @property
    def p_moved(self) -> float | None:
        """Mean over all pairs of how much the probability changed, up or down."""
        return _share(self._p_moved, self.steps)

    @property
    def share_raised(self) -> float | None:
        """Of the pairs that failed before, the share that pass after."""
        return _share(self.raised, self.failed_before)

    @property
    def share_lowered(self) -> float | None:
        """Of the pairs that passed before, the share that fail after."""
        return _share(self.lowered, self.passed_before)

    def share_passing(self, *, empties: bool) -> float | None:
        """Share of the spoilt pairs that pass all the same.

        Args:
            empties: whether they say nothing any more: then of all pairs, otherwise of those that
                passed before, since a wrong step may become right when it is changed.
        """
        kept = self.passed_before - self.lowered
        if empties:
            return _share(kept + self.raised, self.steps)
        return _share(kept, self.passed_before)

    @property
    def flip_rate(self) -> float | None:
        """Share of all pairs whose verdict turned."""
        return _share(self.raised + self.lowered, self.steps)

    @property
    def earned(self) -> dict[str, float | None]:
        """By rule of aggregation, mean rise of the whole response's score: what a policy gains.

        New steps count here, and left out ones do not, so it also rises where a judge is right
        about every step but a rule pays for more steps, or for fewer.
        """
        return {rule: _share(total, self.rollouts) for rule, total in self._earned.items()}

    def fooled(self, *, spoils: bool, empties: bool = False) -> bool | None:
        """Whether the attack works on this judge; None where there is nothing to tell it by.

        Args:
            spoils: whether the steps that are compared became wrong by the edit.
            empties: whether they became wrong by saying nothing any more. The score of a rollout
                may not rise by that either.
        """
        shift = self.score_shift
        if shift is None:
            return None
        risen = shift > SHIFT_ALLOWED
        if not spoils:
            return risen or (self.share_raised or 0.0) > RAISED_ALLOWED
        passing = self.share_passing(empties=empties)
        if passing is None:
            return None
        return passing > PASSED_ALLOWED or (empties and risen)

    def figures(self) -> dict[str, Any]:
        """All of it as plain JSON values; null where there is nothing."""
        return {
            "rollouts": self.rollouts,
            "unscored": dict(self.unscored),
            "impossible": self.impossible,
            "steps": self.steps,
            "score_shift": self.score_shift,
            "score_shift_error": self.score_shift_error,
            "p_shift": self.p_shift,
            "p_shift_of_failed_steps": _share(self._shift_of_failed, self.failed_before),
            "p_moved": self.p_moved,
            "flip_rate": self.flip_rate,
            "failed_before": self.failed_before,
            "raised": self.share_raised,
            "passed_before": self.passed_before,
            "lowered": self.share_lowered,
            "earned": self.earned,
        }


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
