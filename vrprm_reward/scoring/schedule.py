"""In what order the judgements of one rollout are asked for. Both ways give the same result.

The prompt of step k holds the hard verdicts of the steps before it, so a plain client needs n
requests one after another.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vrprm_reward.concurrently import all_or_first_error

Schedule = Literal["auto", "lockstep", "fixed_point"]
"""`auto` leaves the choice to the engine."""

AskStep = Callable[[Sequence[int]], Awaitable[float]]
"""Verdicts of the first k steps -> probability that step k is correct."""


@dataclass(frozen=True)
class Schedules:
    """Probabilities of all steps, and how many rounds and requests it took."""

    p_correct: tuple[float, ...]
    rounds: int
    requests: int


def verdict(p_correct: float) -> int:
    """The hard judgement that later prompts see."""
    return int(p_correct >= 0.5)


async def lockstep(ask: AskStep, steps: int, draft: Sequence[int] = ()) -> Schedules:  # noqa: ARG001
    """One step after another; an engine batches step k of many rollouts together."""
    found: list[float] = []
    for _ in range(steps):
        found.append(await ask([verdict(p) for p in found]))
    return Schedules(tuple(found), steps, steps)


async def fixed_point(ask: AskStep, steps: int, draft: Sequence[int] = ()) -> Schedules:
    """All steps at once with a drafted history, then again those whose history turned out wrong.

    The draft says 1 where it is not given. After round r at least the first r steps are final,
    since a step is final once every verdict before it is, so there are at most `steps` rounds,
    whatever the draft.
    """
    draft = [*draft[:steps], *[1] * (steps - len(draft))]
    found = [0.0] * steps
    stale = list(range(steps))
    rounds = requests = 0
    while stale:
        answers = await all_or_first_error([ask(draft[:index]) for index in stale])
        rounds += 1
        requests += len(stale)
        for index, p_correct in zip(stale, answers, strict=True):
            found[index] = p_correct
        fresh = [verdict(p) for p in found]
        first_change = next((i for i in range(steps) if fresh[i] != draft[i]), steps)
        draft = fresh
        stale = list(range(first_change + 1, steps))
    return Schedules(tuple(found), rounds, requests)


async def at_once(ask: AskStep, steps: int, draft: Sequence[int] = ()) -> Schedules:  # noqa: ARG001
    """All steps in one round, for frames whose prompts do not hold earlier verdicts."""
    found = await all_or_first_error([ask([1] * index) for index in range(steps)])
    return Schedules(tuple(found), 1, steps)
