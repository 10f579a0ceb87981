"""One number for a response from the probabilities of its steps."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

Aggregation = Literal["mean", "min", "product", "last", "first_error"]
"""`mean` is VRPRM's (arXiv 2508.03556); `min`, `product` and `last` are compared by
Lightman et al. 2023, arXiv 2305.20050, and by Zhang et al. 2025, arXiv 2501.07301."""

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


def aggregate(p_correct: Sequence[float], rule: Aggregation, threshold: float = 0.5) -> float:
    """A response-level score in [0, 1] from step probabilities; larger is better.

    `first_error` is the share of steps before the first one below `threshold`, 1 if there is none.
    Raises `ValueError` for no steps, a probability outside [0, 1] (NaN too) or an unknown rule.
    """
    if not p_correct:
        raise ValueError("there are no steps to aggregate: leave unscored rollouts out")
    for index, p in enumerate(p_correct):
        if not 0 <= p <= 1:
            raise ValueError(f"step {index} has p_correct {p!r}, which is not in [0, 1]")
    if rule == "mean":
        return math.fsum(p_correct) / len(p_correct)
    if rule == "min":
        return min(p_correct)
    if rule == "product":
        return math.prod(p_correct)
    if rule == "last":
        return p_correct[-1]
    if rule == "first_error":
        wrong = first_error(p_correct, threshold)
        return 1.0 if wrong is None else wrong / len(p_correct)
    raise ValueError(f"unknown aggregation {rule!r}; choose one of {', '.join(AGGREGATIONS)}")


def first_error(p_correct: Sequence[float], threshold: float = 0.5) -> int | None:
    """Index of the first step whose probability is below `threshold`; None if there is none."""
    return next((index for index, p in enumerate(p_correct) if p < threshold), None)
