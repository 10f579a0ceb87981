"""Advantages, worked out by hand."""

import math

import pytest
import torch

from vrprm_reward.rewards.advantage import (
    ESTIMATORS,
    group_mean,
    leave_one_out,
    outcome_gated,
    process_grpo,
    return_to_go,
    same_step,
    to_tokens,
)
from vrprm_reward.rewards.credit import credit


def tensors(*rows):
    return [None if row is None else torch.tensor(row, dtype=torch.float64) for row in rows]


def lists(rows):
    return [None if row is None else row.tolist() for row in rows]


def test_the_return_to_go_sums_what_is_still_to_come():
    assert return_to_go(torch.tensor([1.0, 2.0, 4.0])).tolist() == [7.0, 6.0, 4.0]


def test_leave_one_out_never_pushes_the_last_right_step_of_a_perfect_rollout_down():
    found = leave_one_out(tensors([1, 1, 1, 1], [1, 0, 0, 0]), ["a", "a"])
    assert lists(found) == [[3, 3, 2, 1], [-3, -3, -2, -1]]


def test_leave_one_out_with_three_rollouts_of_different_lengths():
    # G: [2, 1], [1, 1, 1], [0]; the mean of the others at steps 0, 1 and 2 by hand.
    found = leave_one_out(tensors([1, 1], [0, 0, 1], [0]), ["a"] * 3)
    assert lists(found) == [[2 - 0.5, 1 - 0.5], [1 - 1, 1 - 0.5, 1 - 0], [0 - 1.5]]


def test_a_step_is_compared_with_the_same_step_of_those_that_have_it():
    # G: [3, 2, 1], [1, 0], [0, 0]; of the third step there is one only.
    found = same_step(tensors([1, 1, 1], [1, 0], [0, 0], [0.25]), ["a", "a", "a", "b"])
    assert lists(found) == [[2.5, 2, 0], [-0.5, -1], [-2, -1], [0]]


def test_each_step_by_itself_gains_nothing_by_more_steps_than_the_others_have():
    def of(*p):
        return same_step(tensors(*(credit(row, "own") for row in p)), ["a"] * len(p))

    short, _ = of([1, 0], [0, 1])
    long, other = of([1, 0, 1, 1, 1], [0, 1])
    assert long.tolist() == [*short.tolist(), 0, 0, 0] == [1, -1, 0, 0, 0]
    assert other.tolist() == [-1, 1]


def test_masked_and_unscorable_rollouts_beside_a_scored_one():
    # G of the scored one is [0.9, 0.8]; the unscorable one has a single reward.
    rows = tensors(credit([0.9, 0.8], "own"), None, [-1])
    found = same_step(rows, ["a"] * 3)
    assert found[0].tolist() == pytest.approx([1.9, 0])
    assert found[1] is None
    assert found[2].tolist() == pytest.approx([-1.9])


def test_an_outcome_reaches_every_step_beside_its_own_probability():
    rows = [credit([0.5, 1.0], "own"), credit([0.5, 0.0], "own")]
    rows[0][-1] += 1  # the first is right
    assert lists(same_step(tensors(*rows), ["a", "a"])) == [[1, 2], [-1, -2]]


@pytest.mark.parametrize("estimator", [leave_one_out, same_step])
def test_a_rollout_alone_in_its_group_has_no_advantage(estimator):
    assert lists(estimator(tensors([1, 0], [1]), ["a", "b"])) == [[0, 0], [0]]


def test_masked_rollouts_stay_out_of_the_statistics():
    with_masked = leave_one_out(tensors([1, 1], None, [0, 0]), ["a"] * 3)
    without = leave_one_out(tensors([1, 1], [0, 0]), ["a"] * 2)
    assert lists(with_masked) == [lists(without)[0], None, lists(without)[1]]
    for estimator in ESTIMATORS.values():
        assert estimator(tensors(None, [1.0]), ["a", "a"])[0] is None


def test_process_grpo_by_hand():
    # The pool 1, 1, 0, 0 has mean 1/2 and sample deviation 1 / sqrt(3).
    found = process_grpo(tensors([1, 1], [0, 0]), ["a", "a"])
    z = 0.5 * math.sqrt(3)
    assert found[0].tolist() == pytest.approx([2 * z, z], rel=1e-5)
    assert found[1].tolist() == pytest.approx([-2 * z, -z], rel=1e-5)


@pytest.mark.parametrize("estimator", [process_grpo, group_mean])
def test_a_group_without_spread_teaches_nothing(estimator):
    assert lists(estimator(tensors([1, 1], [1, 1]), ["a", "a"])) == [[0, 0], [0, 0]]


def test_group_mean_forgets_where_a_reward_was_earned():
    early, late = (
        group_mean(tensors([1, 0], [0, 0]), ["a"] * 2),
        group_mean(tensors([0, 1], [0, 0]), ["a"] * 2),
    )
    assert lists(early) == lists(late)
    assert early[0].tolist() == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-5)


def test_outcome_gated_ranks_right_responses_by_their_steps_only():
    rewards = tensors([1, 1], [1, 0], [1, 1])
    found = outcome_gated(rewards, ["a"] * 3, [1, 1, 0])
    # Outcomes 1, 1, 0: deviation 1 / sqrt(3). Among the right ones means 1 and 1/2.
    outcome = (1 / 3) * math.sqrt(3)
    process = 0.25 / math.sqrt(0.125)
    assert found[0].tolist() == pytest.approx([outcome + process] * 2, rel=1e-4)
    assert found[1].tolist() == pytest.approx([outcome - process] * 2, rel=1e-4)
    assert found[2].tolist() == pytest.approx([-2 * outcome] * 2, rel=1e-4)


def test_half_an_outcome_is_right_as_everywhere():
    rewards = tensors([1, 1], [1, 0], [1, 1])
    first, second, _ = outcome_gated(rewards, ["a"] * 3, [0.5, 0.5, 0])
    assert (first > second).all()


def test_tokens_carry_the_advantage_of_the_step_they_belong_to():
    mask = torch.tensor([1, 1, 1, 1, 1, 1, 0])
    spread = to_tokens(torch.tensor([3.0, -1.0]), [1, 4], mask)
    assert spread.tolist() == [3, 3, -1, -1, -1, 0, 0]


def test_the_token_that_ends_the_response_has_no_step_and_no_advantage():
    spread = to_tokens(torch.tensor([3.0, -1.0]), [1, 3], torch.ones(6))
    assert spread.tolist() == [3, 3, -1, -1, 0, 0]
    assert to_tokens(torch.tensor([2.0]), [5], torch.ones(6)).tolist() == [2] * 6


def test_tool_tokens_between_steps_carry_nothing():
    spread = to_tokens(torch.tensor([3.0, -1.0]), [1, 5], torch.tensor([1, 1, 0, 0, 1, 1]))
    assert spread.tolist() == [3, 3, 0, 0, -1, -1]


def test_a_response_without_steps_carries_nothing():
    assert to_tokens(torch.zeros(0), [], torch.ones(3)).tolist() == [0, 0, 0]


def test_an_empty_row_is_refused_with_the_way_to_leave_it_out():
    with pytest.raises(ValueError, match=r"rollout 1 has step rewards of shape \(0,\).*None"):
        leave_one_out([torch.ones(2), torch.ones(0)], ["a", "a"])
    with pytest.raises(ValueError, match="1 rollouts but 2 group names"):
        leave_one_out([torch.ones(2)], ["a", "a"])
