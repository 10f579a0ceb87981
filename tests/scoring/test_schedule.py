"""Both schedules give exactly what one request after another gives."""

import asyncio
import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from vrprm_reward.scoring.schedule import fixed_point, lockstep, verdict


def answer(seed: int, bias: int, verdicts) -> float:
    """A probability that depends on every verdict before it, as unpredictably as can be."""
    digest = hashlib.sha256(f"{seed} {list(verdicts)}".encode()).digest()
    return max(0.0, min(1.0, digest[0] / 255 + bias / 10))


def plain(seed: int, bias: int, steps: int) -> list[float]:
    found: list[float] = []
    for _ in range(steps):
        found.append(answer(seed, bias, [verdict(p) for p in found]))
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(-4, 4),
    st.integers(1, 14),
    st.lists(st.integers(0, 1), max_size=16),
)
def test_both_schedules_equal_the_plain_sequence_whatever_is_drafted(seed, bias, steps, draft):
    async def ask(verdicts):
        await asyncio.sleep(0)
        return answer(seed, bias, verdicts)

    expected = plain(seed, bias, steps)
    one_by_one = asyncio.run(lockstep(ask, steps, draft))
    at_once = asyncio.run(fixed_point(ask, steps, draft))
    assert list(one_by_one.p_correct) == expected
    assert list(at_once.p_correct) == expected
    assert one_by_one.rounds == one_by_one.requests == steps
    assert at_once.rounds <= steps
    assert at_once.requests >= steps


def test_a_flawless_solution_takes_one_round():
    async def ask(verdicts):
        return 0.9

    result = asyncio.run(fixed_point(ask, 9))
    assert (result.rounds, result.requests) == (1, 9)


def test_only_steps_with_a_changed_history_are_asked_again():
    asked = []

    async def ask(verdicts):
        asked.append(list(verdicts))
        return 0.2 if len(verdicts) == 2 else 0.9

    result = asyncio.run(fixed_point(ask, 5))
    assert asked[5:] == [[1, 1, 0], [1, 1, 0, 1]]
    assert (result.rounds, result.requests) == (2, 7)


def test_a_draft_that_is_right_takes_one_round():
    async def ask(verdicts):
        return 0.2 if len(verdicts) == 2 else 0.9

    result = asyncio.run(fixed_point(ask, 5, [1, 1, 0, 1, 1]))
    assert (result.rounds, result.requests) == (1, 5)
