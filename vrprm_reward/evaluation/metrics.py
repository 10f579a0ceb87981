"""How well step probabilities agree with step labels, in constant memory.

Notation: a step is correct, incorrect or neutral by its label. Neutral steps are left out. A step
without a prediction is *invalid*: it counts as missed for the class it has (a false negative) and
never as a false alarm for the other one (VisualProcessBench, arXiv 2503.10291, as its published
evaluation counts it).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

CORRECT, NEUTRAL, INCORRECT = 1, 0, -1
"""Labels of VisualProcessBench."""

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Where F1 is measured, besides the official 0.5, which is among them."""

OFFICIAL = 0.5
BINS = 10


@dataclass
class Confusion:
    """Counts of labelled steps by what was predicted."""

    correct_passed: int = 0
    """Correct steps predicted correct."""

    correct_failed: int = 0
    """Correct steps predicted incorrect."""

    correct_invalid: int = 0
    """Correct steps without a prediction."""

    incorrect_passed: int = 0
    incorrect_failed: int = 0
    incorrect_invalid: int = 0

    def add(self, label: int, verdict: bool | None) -> None:
        """Count one step that is not neutral; `verdict` is None where there is no prediction."""
        kind = "invalid" if verdict is None else "passed" if verdict else "failed"
        name = f"{'correct' if label == CORRECT else 'incorrect'}_{kind}"
        setattr(self, name, getattr(self, name) + 1)

    @property
    def steps(self) -> int:
        """Labelled steps that are not neutral."""
        return (
            self.correct_passed + self.correct_failed + self.correct_invalid
            + self.incorrect_passed + self.incorrect_failed + self.incorrect_invalid
        )  # fmt: skip

    @property
    def invalid(self) -> int:
        """Steps without a prediction."""
        return self.correct_invalid + self.incorrect_invalid

    @property
    def correct_f1(self) -> float:
        """F1 of the class of correct steps, in [0, 1]; 0 where it is undefined."""
        missed = self.correct_failed + self.correct_invalid
        return _f1(self.correct_passed, self.incorrect_passed, missed)

    @property
    def incorrect_f1(self) -> float:
        """F1 of the class of incorrect steps, in [0, 1]; 0 where it is undefined."""
        missed = self.incorrect_passed + self.incorrect_invalid
        return _f1(self.incorrect_failed, self.correct_failed, missed)

    @property
    def macro_f1(self) -> float:
        """Mean of the two."""
        return (self.correct_f1 + self.incorrect_f1) / 2


def _f1(hits: int, false_alarms: int, missed: int) -> float:
    total = 2 * hits + false_alarms + missed
    return 2 * hits / total if total else 0.0


@dataclass
class Calibration:
    """Probabilities held against how often they come true, in ten bins of equal width.

    Guo et al. 2017, arXiv 1706.04599, section 2.
    """

    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    """Steps of each bin."""

    sums: list[float] = field(default_factory=lambda: [0.0] * BINS)
    """Sum of their probabilities."""

    hits: list[int] = field(default_factory=lambda: [0] * BINS)
    """Correct ones among them."""

    def add(self, p: float, *, correct: bool) -> None:
        """Count one step with a probability in [0, 1]; 1 belongs to the last bin."""
        bin_ = min(BINS - 1, int(p * BINS))
        self.counts[bin_] += 1
        self.sums[bin_] += p
        self.hits[bin_] += correct

    @property
    def error(self) -> float | None:
        """Expected calibration error in [0, 1] (equation 3); None without steps."""
        total = sum(self.counts)
        if not total:
            return None
        gaps = (abs(p - hit) for p, hit in zip(self.sums, self.hits, strict=True))
        return sum(gaps) / total

    def bins(self) -> list[dict[str, float | int]]:
        """Of each bin with steps: mean probability, share of correct steps, and their number."""
        return [
            {
                "mean_p": self.sums[index] / count,
                "share_correct": self.hits[index] / count,
                "steps": count,
            }
            for index, count in enumerate(self.counts)
            if count
        ]


def first_error_of(
    labels: Sequence[int], verdicts: Sequence[bool]
) -> tuple[int | None, int | None]:
    """Index of the first incorrect step by label and by verdict, neutral steps left out of both."""
    kept = [(i, label, ok) for i, (label, ok) in enumerate(zip(labels, verdicts, strict=True))]
    true = next((i for i, label, _ in kept if label == INCORRECT), None)
    told = next((i for i, label, ok in kept if label != NEUTRAL and not ok), None)
    return true, told


@dataclass
class Measured:
    """All figures over the rollouts that were added, of one source or of all."""

    by_threshold: dict[float, Confusion] = field(
        default_factory=lambda: {t: Confusion() for t in THRESHOLDS}
    )
    """All rollouts; steps of unscored ones are invalid."""

    scored_only: Confusion = field(default_factory=Confusion)
    """Scored rollouts alone, at the official threshold."""

    calibration: Calibration = field(default_factory=Calibration)
    """Scored steps."""

    rollouts: int = 0
    scored: int = 0
    neutral: int = 0
    """Steps left out because their label is neutral."""

    with_labels: int = 0
    """Rollouts with at least one step that is not neutral."""

    first_error_found: int = 0
    """Of these, scored ones whose first incorrect step (or that there is none) was found."""

    scored_with_labels: int = 0

    def add(self, labels: Sequence[int], p_correct: Sequence[float | None] | None) -> None:
        """Count one rollout.

        Args:
            labels: 1, 0 (neutral) or -1 for each step.
            p_correct: the probability of each step, None for one that could not be judged; None
                in place of all where the rollout is unscored.

        Raises:
            ValueError: as many probabilities as labels are needed.
        """
        if p_correct is not None and len(p_correct) != len(labels):
            raise ValueError(f"{len(p_correct)} probabilities for {len(labels)} labels")
        self.rollouts += 1
        self.scored += p_correct is not None
        judged = [None] * len(labels) if p_correct is None else list(p_correct)
        for label, p in zip(labels, judged, strict=True):
            if label == NEUTRAL:
                self.neutral += 1
                continue
            for threshold, confusion in self.by_threshold.items():
                confusion.add(label, None if p is None else p >= threshold)
            if p_correct is not None:
                self.scored_only.add(label, None if p is None else p >= OFFICIAL)
            if p is not None:
                self.calibration.add(p, correct=label == CORRECT)
        self._add_first_error(labels, judged, scored=p_correct is not None)

    def _add_first_error(
        self, labels: Sequence[int], judged: Sequence[float | None], *, scored: bool
    ) -> None:
        if all(label == NEUTRAL for label in labels):
            return
        self.with_labels += 1
        if scored:
            self.scored_with_labels += 1
            true, told = first_error_of(labels, [p is not None and p >= OFFICIAL for p in judged])
            self.first_error_found += true == told

    @property
    def official(self) -> Confusion:
        """All rollouts, at the official threshold."""
        return self.by_threshold[OFFICIAL]

    def figures(self) -> dict[str, object]:
        """All of it as plain JSON values; shares in [0, 1], null where there is nothing."""
        official, alone = self.official, self.scored_only
        return {
            "rollouts": self.rollouts,
            "scored_rollouts": self.scored,
            "steps": official.steps,
            "neutral_steps": self.neutral,
            "invalid_steps": official.invalid,
            "macro_f1": official.macro_f1,
            "correct_f1": official.correct_f1,
            "incorrect_f1": official.incorrect_f1,
            "scored_only": {
                "coverage": self.scored / self.rollouts if self.rollouts else None,
                "macro_f1": alone.macro_f1 if alone.steps else None,
                "correct_f1": alone.correct_f1 if alone.steps else None,
                "incorrect_f1": alone.incorrect_f1 if alone.steps else None,
                "first_error_accuracy": _share(self.first_error_found, self.scored_with_labels),
            },
            "first_error_accuracy": _share(self.first_error_found, self.with_labels),
            "expected_calibration_error": self.calibration.error,
            "reliability": self.calibration.bins(),
            "macro_f1_by_threshold": {
                f"{threshold:.2f}": confusion.macro_f1
                for threshold, confusion in self.by_threshold.items()
            },
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
