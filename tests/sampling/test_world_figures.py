"""The measurement on the demo world, with a reward that knows the truth."""

import pytest

from benchmarks.world_policy import NoisySolver, OracleReward, tasks
from benchmarks.world_sampling import measure_best_of_n, measure_rejection
from vrprm_reward.sampling.best_of_n import ANY, PASS
from vrprm_reward.sampling.rejection import SearchSettings


@pytest.fixture(scope="module")
def solver() -> NoisySolver:
    return NoisySolver(tuple(tasks(30)))


def test_with_the_truth_the_last_step_chooses_a_right_answer_wherever_there_is_one(
    solver: NoisySolver,
) -> None:
    curves = measure_best_of_n(OracleReward(solver), solver, 8)
    assert curves["last"] == pytest.approx(curves[PASS])
    assert curves["mean"][1] == pytest.approx(curves[ANY][1])
    assert curves["mean"][8] > curves["mean"][1]


def test_with_the_truth_every_built_solution_is_right_and_plain_ones_are_not(
    solver: NoisySolver,
) -> None:
    found = measure_rejection(OracleReward(solver), solver, SearchSettings())
    assert found["step_level"]["share"] == 1.0
    assert found["plain"]["share"] < 0.8
    plain, built = found["plain"]["policy_tokens"], found["step_level"]["policy_tokens"]
    assert plain == pytest.approx(built, rel=0.2)


def test_with_nothing_but_noise_it_is_no_better_than_one_at_random(solver: NoisySolver) -> None:
    curves = measure_best_of_n(OracleReward(solver, hit=0.5), solver, 8)
    # It may be worse: there are more wrong steps than right ones, and the luckiest of all wins.
    assert curves["mean"][8] < curves[ANY][8] + 0.25
