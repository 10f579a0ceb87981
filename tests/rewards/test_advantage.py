"""Advantages, worked out by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vrprm_reward.rewards.advantage import (
    ESTIMATORS,
    group_mean,
    leave_one_out,
    outcome_gated,
    prefix_weights,
    process_grpo,
    return_to_go,
    same_step,
    sound_prefix,
    to_tokens,
)
from vrprm_reward.rewards.combine import RewardRule, advantage_for, step_rewards
from vrprm_reward.rewards.credit import credit
from vrprm_reward.rewards.outcome import Outcome


def tensors(*rows):
    return [None if row is None else torch.tensor(row, dtype=torch.float64) for row in rows]


def lists(rows):
    return [None if row is None else row.tolist() for row in rows]


def test_the_return_to_go_sums_what_is_still_to_come():
    assert return_to_go(torch.tensor([1.0, 2.0, 4.0])).tolist() == [7.0, 6.0, 4.0]


def test_leave_one_out_never_pushes_the_last_right_step_of_a_perfect_rollout_down():
    found = leave_one_out(tensors([1, 1, 1, 1], [1, 0, 0, 0]), ["a", "a"])
    assert lists(found) == [[3, 3, 2, 1, 0], [-3, -3, -2, -1, 0]]


def test_leave_one_out_with_three_rollouts_of_different_lengths():
    # G and e: [2, 1, 0], [1, 1, 1, 0], [0, 0]; the mean of the others at each place by hand.
    found = leave_one_out(tensors([1, 1], [0, 0, 1], [0]), ["a"] * 3)
    assert lists(found) == [
        [2 - 0.5, 1 - 0.5, 0 - 0.5],
        [1 - 1, 1 - 0.5, 1 - 0, 0],
        [0 - 1.5, 0 - 1],
    ]


def test_a_rollout_that_has_ended_counts_with_what_its_end_earned():
    # G and e: [1.5, 1], [2, 2, 2]: behind its end the first one still counts as 1.
    found = leave_one_out(tensors([0.5], [0, 0]), ["a", "a"], [1, 2])
    assert lists(found) == [[-0.5, -1], [0.5, 1, 1]]


def test_an_outcome_at_the_end_is_a_baseline_of_the_whole_response_whatever_the_steps():
    found = leave_one_out(tensors([0, 0], [0] * 5, [0]), ["a"] * 3, [1, 0, 1])
    assert lists(found) == [[0.5] * 3, [-1] * 6, [0.5] * 2]


STOPS = 0.3
"""With this probability a response of the toy ends after each step."""


def expected_push_to_end(estimator, rule, p_correct, right):
    """d E[.] / d(logit of ending) for pairs of responses of one to three steps, all enumerated.

    Whether an answer of k steps is right has the probability right(k), and step k p_correct[k].
    """
    lengths = {1: STOPS, 2: STOPS * (1 - STOPS), 3: (1 - STOPS) ** 2}
    one = [
        (k, outcome, lengths[k] * (right(k) if outcome else 1 - right(k)))
        for k in lengths
        for outcome in (1.0, 0.0)
    ]
    total = 0.0
    for pair in itertools.product(one, repeat=2):
        earned = [step_rewards(p_correct[:k], Outcome(outcome), rule) for k, outcome, _ in pair]
        found = estimator(tensors(*(e[0] for e in earned)), ["a", "a"], [e[1] for e in earned])
        for (k, _, _), row in zip(pair, found, strict=True):
            went_on = -STOPS * float(row[1:k].sum())
            ended = (1 - STOPS) * float(row[k]) if k < 3 else 0.0
            total += math.prod(chance for _, _, chance in pair) * (went_on + ended) / 2
    return total


GATED = RewardRule(combination="gated")


@pytest.mark.parametrize(
    ("estimator", "rule"), [(sound_prefix, RewardRule()), (leave_one_out, GATED)]
)
def test_steps_that_change_nothing_are_neither_sought_nor_avoided(estimator, rule):
    same = [0.9, 0.9, 0.9]
    for right in (0.0, 0.6, 1.0):
        push = expected_push_to_end(estimator, rule, same, lambda _, r=right: r)
        assert push == pytest.approx(0, abs=1e-9)


def test_what_later_steps_take_from_earlier_ones_is_sought():
    same, uncausal = [0.9, 0.9, 0.9], RewardRule(combination="gated", credit="min_form")
    assert expected_push_to_end(leave_one_out, uncausal, same, lambda _: 0.6) < -0.01


@pytest.mark.parametrize("combination", ["sound", "gated", "outcome", "ps_grpo", "sum"])
def test_an_answer_that_is_righter_with_fewer_steps_is_sought_with_fewer(combination):
    rule = RewardRule(combination=combination)
    estimator = ESTIMATORS[advantage_for(rule)]
    push = expected_push_to_end(estimator, rule, [0.9, 0.9, 0.9], lambda k: 0.9 - 0.3 * (k - 1))
    assert push > 0
    if combination in ("outcome", "ps_grpo"):
        # Ending instead of going on, after the first step and after the second.
        first = 0.9 - (STOPS * 0.6 + (1 - STOPS) * 0.3)
        second = (1 - STOPS) * (0.6 - 0.3)
        assert push == pytest.approx(STOPS * (1 - STOPS) * (first + second))


def test_a_doubtful_step_more_is_avoided():
    push = expected_push_to_end(leave_one_out, GATED, [0.9, 0.5, 0.5], lambda _: 0.6)
    # Going on after the first step costs a right answer 0.4, after the second nothing.
    assert push == pytest.approx(STOPS * (1 - STOPS) * 0.6 * 0.4)
    # The same, and what is chosen behind a step of 0.9 is learnt from with that weight.
    push = expected_push_to_end(sound_prefix, RewardRule(), [0.9, 0.5, 0.5], lambda _: 0.6)
    assert push == pytest.approx(0.9 * STOPS * (1 - STOPS) * 0.6 * 0.4)


def test_sound_prefix_by_hand():
    # Probabilities 0.9, 0.1, 0.8 of a right answer (earns 0.1), and 0.9, 0.9 of a wrong one (0).
    rule = RewardRule()
    right = step_rewards([0.9, 0.1, 0.8], Outcome(1.0), rule)
    wrong = step_rewards([0.9, 0.9], Outcome(0.0), rule)
    found = sound_prefix(tensors(right[0], wrong[0]), ["a", "a"], [right[1], wrong[1]])
    assert found[0].tolist() == pytest.approx([0.1, 0.09, 0.01, 0.01])
    assert found[1].tolist() == pytest.approx([-0.1, -0.09, -0.09])


def test_an_unscorable_response_under_sound_prefix_is_learnt_from_as_a_whole():
    rule = RewardRule()
    steps, end = step_rewards([0.8], Outcome(1.0), rule)
    found = sound_prefix(tensors(steps, [rule.lowest]), ["a", "a"], [end, 0])
    assert found[1].tolist() == pytest.approx([-0.8, 0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_step_is_learnt_from_as_much_as_what_it_builds_on_is_believed(p):
    steps, _ = step_rewards(p, Outcome(0.0), RewardRule())
    weights = prefix_weights(torch.tensor(steps, dtype=torch.float32))
    assert weights.tolist() == pytest.approx([1, *itertools.accumulate(p, min)], abs=1e-5)


def test_a_step_is_compared_with_the_same_step_of_those_that_have_it():
    # G: [3, 2, 1], [1, 0], [0, 0]; of the third step there is one only.
    found = same_step(tensors([1, 1, 1], [1, 0], [0, 0], [0.25]), ["a", "a", "a", "b"])
    assert lists(found) == [[2.5, 2, 0, 0], [-0.5, -1, 0], [-2, -1, 0], [0, 0]]


def test_each_step_by_itself_gains_nothing_by_more_steps_than_the_others_have():
    def of(*p):
        return same_step(tensors(*(credit(row, "own") for row in p)), ["a"] * len(p))

    short, _ = of([1, 0], [0, 1])
    long, other = of([1, 0, 1, 1, 1], [0, 1])
    assert long.tolist() == [*short.tolist(), 0, 0, 0] == [1, -1, 0, 0, 0, 0]
    assert other.tolist() == [-1, 1, 0]


def test_masked_and_unscorable_rollouts_beside_a_scored_one():
    # G of the scored one is [0.9, 0.8]; the unscorable one has a single reward.
    rows = tensors(credit([0.9, 0.8], "own"), None, [-1])
    found = same_step(rows, ["a"] * 3)
    assert found[0].tolist() == pytest.approx([1.9, 0, 0])
    assert found[1] is None
    assert found[2].tolist() == pytest.approx([-1.9, 0])


def test_an_outcome_reaches_every_step_beside_its_own_probability():
    rows = [credit([0.5, 1.0], "own"), credit([0.5, 0.0], "own")]
    assert lists(same_step(tensors(*rows), ["a", "a"], [1, 0])) == [[1, 2, 0], [-1, -2, 0]]


@pytest.mark.parametrize("estimator", [leave_one_out, same_step, sound_prefix])
def test_a_rollout_alone_in_its_group_has_no_advantage(estimator):
    assert lists(estimator(tensors([1, 0], [1]), ["a", "b"], [1, 1])) == [[0, 0, 0], [0, 0]]


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
    assert found[0].tolist() == pytest.approx([2 * z, z, 0], rel=1e-5)
    assert found[1].tolist() == pytest.approx([-2 * z, -z, 0], rel=1e-5)
    # Ends 1 and 0 have the mean 1/2 and the sample deviation 1 / sqrt(2).
    ended = process_grpo(tensors([1, 1], [0, 0]), ["a", "a"], [0, 1])
    end = math.sqrt(0.5)
    assert ended[0].tolist() == pytest.approx([2 * z - end, z - end, -end], rel=1e-5)


@pytest.mark.parametrize("estimator", [process_grpo, group_mean])
def test_a_group_without_spread_teaches_nothing(estimator):
    assert lists(estimator(tensors([1, 1], [1, 1]), ["a", "a"])) == [[0] * 3] * 2


def test_group_mean_forgets_where_a_reward_was_earned():
    early, late, end = (
        group_mean(tensors([1, 0], [0, 0]), ["a"] * 2),
        group_mean(tensors([0, 1], [0, 0]), ["a"] * 2),
        group_mean(tensors([0, 0], [0, 0]), ["a"] * 2, [1, 0]),
    )
    assert lists(early) == lists(late) == lists(end)
    assert early[0].tolist() == pytest.approx([math.sqrt(0.5)] * 3, rel=1e-5)


def test_outcome_gated_ranks_right_responses_by_their_steps_only():
    rewards = tensors([1, 1], [1, 0], [1, 1])
    found = outcome_gated(rewards, ["a"] * 3, [1, 1, 0])
    # Outcomes 1, 1, 0: deviation 1 / sqrt(3). Among the right ones means 1 and 1/2.
    outcome = (1 / 3) * math.sqrt(3)
    process = 0.25 / math.sqrt(0.125)
    assert found[0].tolist() == pytest.approx([outcome + process] * 3, rel=1e-4)
    assert found[1].tolist() == pytest.approx([outcome - process] * 3, rel=1e-4)
    assert found[2].tolist() == pytest.approx([-2 * outcome] * 3, rel=1e-4)


def test_half_an_outcome_is_right_as_everywhere():
    rewards = tensors([1, 1], [1, 0], [1, 1])
    first, second, _ = outcome_gated(rewards, ["a"] * 3, [0.5, 0.5, 0])
    assert (first > second).all()


def test_tokens_carry_the_advantage_of_the_step_they_belong_to():
    mask = torch.tensor([1, 1, 1, 1, 1, 1, 0])
    spread = to_tokens(torch.tensor([3.0, -1.0, 0.5]), [1, 4], mask)
    assert spread.tolist() == [3, 3, -1, -1, -1, 0.5, 0]


def test_the_tokens_behind_the_last_step_carry_the_advantage_of_the_end():
    spread = to_tokens(torch.tensor([3.0, -1.0, 0.5]), [1, 3], torch.ones(6))
    assert spread.tolist() == [3, 3, -1, -1, 0.5, 0.5]
    assert to_tokens(torch.tensor([2.0, 0.5]), [5], torch.ones(6)).tolist() == [2] * 6


def test_tool_tokens_between_steps_carry_nothing():
    advantages = torch.tensor([3.0, -1.0, 0.5])
    spread = to_tokens(advantages, [1, 5], torch.tensor([1, 1, 0, 0, 1, 1]))
    assert spread.tolist() == [3, 3, 0, 0, -1, -1]


def test_advantages_without_one_for_the_end_are_refused():
    with pytest.raises(ValueError, match=r"2 advantages for 2 steps: .* one for the end"):
        to_tokens(torch.ones(2), [0, 1], torch.ones(3))


def test_an_empty_row_is_refused_with_the_way_to_leave_it_out():
    with pytest.raises(ValueError, match=r"rollout 1 has step rewards of shape \(0,\).*None"):
        leave_one_out([torch.ones(2), torch.ones(0)], ["a", "a"])
    with pytest.raises(ValueError, match="1 rollouts but 2 group names"):
        leave_one_out([torch.ones(2)], ["a", "a"])
