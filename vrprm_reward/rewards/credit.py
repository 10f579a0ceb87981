"""What each step earns: rewards per step from the probabilities of the steps.

Notation: r_1 .. r_K are the probabilities of the K steps of one response.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

CreditRule = Literal[
    "raw", "centred", "hard", "own", "running_min", "min_form", "delta", "clip", "clip_delta"
]

TEMPERATURE = 0.1
"""PURE's temperature of the min-form."""

ETA = 0.5
"""Default threshold of `clip`: steps at least this likely earn nothing."""


class Rule(NamedTuple):
    """A credit rule and the least that one step can earn under it."""

    rewards: Callable[[Sequence[float]], list[float]]
    lowest: float


def raw(p_correct: Sequence[float]) -> list[float]:
    """r_k: each step earns its probability."""
    return [float(p) for p in p_correct]


def centred(p_correct: Sequence[float]) -> list[float]:
    """2 r_k - 1: a step that is more likely wrong than right costs."""
    return [2.0 * p - 1.0 for p in p_correct]


def hard(p_correct: Sequence[float]) -> list[float]:
    """1 where r_k is at least 0.5, otherwise 0: VRPRM's own judgement."""
    return [float(p >= 0.5) for p in p_correct]


def own(p_correct: Sequence[float]) -> list[float]:
    """r_k - r_{k+1}, and r_K at the last step: the return-to-go, undiscounted, of a step is r_k.

    So a step is credited with itself and not with what follows, and the sum, r_1, does not grow
    with the steps. For the advantage rule `same_step`. As `delta` (Gao et al. 2024, arXiv
    2410.15115), but the last step counts too.
    """
    falls = [p - after for p, after in itertools.pairwise(p_correct)]
    return [*falls, *map(float, p_correct[-1:])]


def running_min(p_correct: Sequence[float]) -> list[float]:
    """r_1, then min(r_1 .. r_k) - min(r_1 .. r_{k-1}): by how much step k lowers the least one.

    The sum is the smallest r, as in PURE's min-form (Cheng et al. 2025, arXiv 2504.15275), but what
    a step earns is settled when it is written. Under the min-form a later step changes what
    earlier ones have earned, so a return-to-go does not say what going on is worth.
    """
    least = [0.0, *itertools.accumulate(map(float, p_correct), min)]
    return [after - before for before, after in itertools.pairwise(least)]


def min_form(p_correct: Sequence[float], temperature: float = TEMPERATURE) -> list[float]:
    """softmax(-r / T)_k * r_k, whose sum approximates the smallest r.

    PURE: Cheng et al. 2025, arXiv 2504.15275. Raises `ValueError` for a temperature not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature!r}; it must be above 0")
    if not p_correct:
        return []
    least = min(p_correct)
    weights = [math.exp((least - p) / temperature) for p in p_correct]
    total = math.fsum(weights)
    return [p * weight / total for p, weight in zip(p_correct, weights, strict=True)]


def delta(p_correct: Sequence[float]) -> list[float]:
    """r_k - r_{k+1} for k < K-1, r_{K-1} at K-1, and 0 at the last step.

    The sum telescopes to r_1, so more steps do not earn more. Gao et al. 2024, arXiv 2410.15115.
    """
    count = len(p_correct)
    if count < 2:
        return [0.0] * count
    falls = [p_correct[k] - p_correct[k + 1] for k in range(count - 2)]
    return [*falls, float(p_correct[-2]), 0.0]


def clip(p_correct: Sequence[float], eta: float = ETA) -> list[float]:
    """min(r_k - eta, 0): only doubtful steps cost, nothing earns. Gao et al. 2024, 2410.15115."""
    return [min(p - eta, 0.0) for p in p_correct]


def clip_delta(p_correct: Sequence[float], eta: float = ETA) -> list[float]:
    """`delta` of `clip`: bounds both the sum and every term. Gao et al. 2024, arXiv 2410.15115."""
    return delta(clip(p_correct, eta))


RULES: Mapping[CreditRule, Rule] = MappingProxyType(
    {
        "raw": Rule(raw, 0.0),
        "centred": Rule(centred, -1.0),
        "hard": Rule(hard, 0.0),
        "own": Rule(own, -1.0),
        "running_min": Rule(running_min, 0.0),
        "min_form": Rule(min_form, 0.0),
        "delta": Rule(delta, -1.0),
        "clip": Rule(clip, -ETA),
        "clip_delta": Rule(clip_delta, -ETA),
    }
)
"""The rules by name, with the reward of a step that could not be worse (under `running_min` of a
response, since steps take back what was earned before them): what a response gets that made itself
unscorable."""


def credit(p_correct: Sequence[float], rule: CreditRule) -> list[float]:
    """Rewards of the steps under a named rule with its default settings.

    Raises `ValueError` for an unknown rule or a probability outside [0, 1].
    """
    if rule not in RULES:
        raise ValueError(f"unknown credit rule {rule!r}; choose one of {', '.join(RULES)}")
    for index, p in enumerate(p_correct):
        if not 0 <= p <= 1:
            raise ValueError(f"step {index} has p_correct {p!r}, which is not in [0, 1]")
    return RULES[rule].rewards(p_correct)


def ps_grpo(
    p_correct: Sequence[float], correct: bool, gamma: float = 0.5, rho: float = 0.3
) -> float:
    """PS-GRPO's outcome: 1 if right, 1 - gamma if right in spite of a fall in r, otherwise 0.

    The fall is max_j (r_j - r_{j+1}) / r_j, and counts from `rho` on; a step with r_j = 0 cannot
    fall. URSA: Luo et al. 2025, arXiv 2501.04686, equations 5 and 6.
    """
    if not correct:
        return 0.0
    pairs = itertools.pairwise(p_correct)
    fall = max(((p - after) / p for p, after in pairs if p > 0), default=0.0)
    return 1.0 - gamma if fall >= rho else 1.0
