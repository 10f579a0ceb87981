"""Choosing one of N answers: by step scores, by votes, and how often that is right for each N.

An unscored candidate has no score: it is never chosen by a rule that goes by scores, and never
counts as 0 in one. Equal scores are told apart by their mean step probability, then the candidate
that stands first wins.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vrprm_reward.rewards.aggregate import AGGREGATIONS, Aggregation, aggregate

MAJORITY, WEIGHTED = "majority", "weighted_majority"
RULES: tuple[str, ...] = (*AGGREGATIONS, MAJORITY, WEIGHTED)
"""All ways to choose."""

MOST_SUBSETS = 256
"""Votes of more subsets of a size than this are estimated from so many random ones."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of one problem, in order."""

    p_correct: tuple[tuple[float, ...] | None, ...]
    """Step probabilities of each, or None where it is unscored."""

    votes: tuple[int | None, ...]
    """For each, the number of its answer: equal answers have equal numbers. None: no answer."""

    weight: Aggregation = "mean"
    """What a candidate's vote counts in the weighted majority."""

    scores: Mapping[str, tuple[float | None, ...]] = field(init=False)
    """By aggregation, the score of each candidate, or None where it is unscored."""

    def __post_init__(self) -> None:
        if len(self.p_correct) != len(self.votes) or not self.votes:
            raise ValueError(
                f"{len(self.p_correct)} scores and {len(self.votes)} votes: give both for every "
                "candidate, and at least one candidate"
            )
        scores = {
            rule: tuple(None if p is None else aggregate(p, rule) for p in self.p_correct)
            for rule in AGGREGATIONS
        }
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.votes)

    def ranking(self, rule: str) -> list[int]:
        """Indices of the scored candidates, the best one first."""
        means, scores = self.scores["mean"], self.scores[rule]
        scored = [i for i, score in enumerate(scores) if score is not None]
        return sorted(scored, key=lambda i: (-(scores[i] or 0.0), -(means[i] or 0.0), i))

    def choose(self, rule: str, among: Sequence[int] | None = None) -> int | None:
        """The candidate that a rule chooses.

        Args:
            rule: one of `RULES`.
            among: indices to choose from, ascending. None: all.

        Returns:
            Its index; None where no candidate is scored, or for votes, where none has an answer
            (and, in the weighted majority, a score).
        """
        indices = range(len(self)) if among is None else among
        if rule in (MAJORITY, WEIGHTED):
            return self._by_votes(indices, weighted=rule == WEIGHTED)
        allowed = set(indices)
        return next((index for index in self.ranking(rule) if index in allowed), None)

    def _by_votes(self, indices: Sequence[int] | range, *, weighted: bool) -> int | None:
        """The first candidate (the best one, if weighted) of the answer with the most votes."""
        weights = self.scores[self.weight]
        found: dict[int, list[int]] = {}
        for index in indices:
            vote = self.votes[index]
            if vote is not None and not (weighted and weights[index] is None):
                found.setdefault(vote, []).append(index)
        if not found:
            return None
        if not weighted:
            return max(found.values(), key=lambda members: (len(members), -members[0]))[0]
        members = max(
            found.values(), key=lambda m: (math.fsum(weights[i] or 0.0 for i in m), -m[0])
        )
        return max(members, key=lambda i: (weights[i] or 0.0, -i))


def right_when_choosing(
    candidates: Candidates, right: Sequence[bool], rule: str, n: int, rng: random.Random
) -> float:
    """How often `rule` chooses a right one of `n` candidates drawn without replacement.

    Exact for rules that go by scores: of the C(N, n) subsets, the candidate of rank k (from 0) is
    chosen from those C(N - 1 - k, n - 1) that hold it and none of the k better ones. For votes the
    mean over all subsets, or over `MOST_SUBSETS` random ones where there are more. No choice is
    not right.

    Args:
        candidates: all N of them.
        right: whether the answer of each is right.
        rule: one of `RULES`.
        n: from 1 to N.
        rng: for the random subsets.
    """
    total = len(candidates)
    if not 1 <= n <= total or len(right) != total:
        raise ValueError(f"n = {n} of {total} candidates with {len(right)} outcomes")
    if rule not in (MAJORITY, WEIGHTED):
        subsets = math.comb(total, n)
        return math.fsum(
            math.comb(total - 1 - rank, n - 1) / subsets
            for rank, index in enumerate(candidates.ranking(rule))
            if right[index]
        )
    hits = [
        chosen is not None and right[chosen]
        for subset in _subsets(total, n, rng)
        for chosen in (candidates.choose(rule, subset),)
    ]
    return sum(hits) / len(hits)


def pass_at(right: Sequence[bool], n: int) -> float:
    """Chance that one of `n` candidates drawn without replacement is right.

    Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    total, wrong = len(right), len(right) - sum(right)
    return 1.0 - math.comb(wrong, n) / math.comb(total, n)


def _subsets(total: int, n: int, rng: random.Random) -> list[tuple[int, ...]]:
    if math.comb(total, n) <= MOST_SUBSETS:
        return list(itertools.combinations(range(total), n))
    return [tuple(sorted(rng.sample(range(total), n))) for _ in range(MOST_SUBSETS)]


PASS, ANY = "pass@n", "any one"
"""Besides the rules: one of n is right; one candidate drawn at random is right."""


@dataclass
class Accuracy:
    """Accuracy of every rule for n = 1, 2, 4, ... N over many problems, in constant memory.

    N is the largest number of candidates that a problem has.
    """

    seed: int = 0
    problems: int = 0
    """Problems counted."""

    unknown: int = 0
    """Problems left out: no reference answer, or one that could not be compared with."""

    no_choice: int = 0
    """Problems of which no candidate was scored; wrong for every rule that goes by scores."""

    _sums: dict[int, dict[str, dict[int, float]]] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def add(self, candidates: Candidates, right: Sequence[bool | None]) -> None:
        """Count a problem in; one of whose candidates it is not known whether they are right
        is left out."""
        known = [r for r in right if r is not None]
        if len(known) != len(candidates):
            self.unknown += 1
            return
        self.problems += 1
        self.no_choice += not candidates.ranking("mean")
        total = len(candidates)
        sums = self._sums.setdefault(total, {})
        rng = random.Random(f"{self.seed} {self.problems}")
        for n in sizes(total):
            for rule in RULES:
                value = right_when_choosing(candidates, known, rule, n, rng)
                _add(sums, rule, n, value)
            _add(sums, PASS, n, pass_at(known, n))
            _add(sums, ANY, n, sum(known) / total)
        self._counts[total] = self._counts.get(total, 0) + 1

    def curves(self) -> dict[str, dict[int, float]]:
        """By rule, `pass@n` and `any one`: n -> accuracy in [0, 1].

        A problem with fewer than n candidates takes part with all it has, one with more with
        exactly n: whatever is between two powers of two and is not the largest number has no
        figure of its own.
        """
        if not self.problems:
            return {}
        ns = sizes(max(self._counts))
        return {
            rule: {
                n: math.fsum(self._sums[total][rule][min(n, total)] for total in self._counts)
                / self.problems
                for n in ns
            }
            for rule in (*RULES, PASS, ANY)
        }


def sizes(total: int) -> list[int]:
    """1, 2, 4, ... and `total`."""
    return [*itertools.takewhile(lambda n: n < total, (2**k for k in range(64))), total]


def _add(sums: dict[str, dict[int, float]], rule: str, n: int, value: float) -> None:
    row = sums.setdefault(rule, {})
    row[n] = row.get(n, 0.0) + value
