import itertools

import pytest

from vrprm_reward.rewards.combine import COMBINATIONS, RewardRule, rollout_reward
from vrprm_reward.rewards.credit import RULES
from vrprm_reward.rewards.outcome import Outcome
from vrprm_reward.rewards.scalar import scalar_reward, split_reward
from vrprm_reward.types import ProcessScore, Step

RIGHT, WRONG, UNKNOWN = Outcome(1.0), Outcome(0.0), Outcome(None, "no_reference")


def scored(*p):
    steps = tuple(Step(text="a", start=2 * k, end=2 * k + 1) for k in range(len(p)))
    return ProcessScore(status="scored", steps=steps, p_correct=p)


OURS = ProcessScore(status="unscored_ours", reason="server_timeout", detail="late")
ITS_OWN = ProcessScore(status="unscored_response", reason="response_empty", detail="empty")


@pytest.mark.parametrize(
    ("combination", "outcome", "expected"),
    [
        ("sum", RIGHT, 0.5 * 0.4 + 2),
        ("sum", WRONG, 0.5 * 0.4),
        ("gated", RIGHT, 0.5 * 0.4 + 2),
        ("gated", WRONG, 0.0),
        ("process", UNKNOWN, 0.5 * 0.4),
        ("outcome", RIGHT, 2.0),
        ("ps_grpo", RIGHT, 1.0),  # 0.8 -> 0.4 is a fall by half, so half of 2 is lost
        ("ps_grpo", WRONG, 0.0),
    ],
)
def test_a_scalar_is_the_aggregate_and_the_outcome_as_the_rule_says(combination, outcome, expected):
    rule = RewardRule(combination=combination, process_weight=0.5, outcome_weight=2.0)
    found = scalar_reward(scored(0.8, 0.4), outcome, rule)
    assert found.rewards == (pytest.approx(expected),)
    assert found.p_correct == (0.8, 0.4)


@pytest.mark.parametrize(("aggregation", "p"), [("mean", 0.6), ("last", 0.4), ("product", 0.32)])
def test_the_aggregation_is_a_choice(aggregation, p):
    rule = RewardRule(combination="process")
    found = scalar_reward(scored(0.8, 0.4), UNKNOWN, rule, aggregation)
    assert found.total == pytest.approx(p)


@pytest.mark.parametrize("score", [OURS, scored(0.5)])
def test_what_cannot_be_scored_is_masked_and_has_no_number(score):
    found = scalar_reward(score, UNKNOWN)
    assert (found.masked, found.rewards) == (True, ())


@pytest.mark.parametrize("make", [scalar_reward, lambda *a: split_reward(*a)[0]])
def test_an_unscorable_response_gets_the_lowest_reward_even_if_it_is_right(make):
    rule = RewardRule(combination="sum", credit="centred")
    lowest = 0.0 if make is scalar_reward else -1.0
    assert make(ITS_OWN, RIGHT, rule).rewards == (lowest,)


@pytest.mark.parametrize(
    ("combination", "credit"),
    [
        pair
        for pair in itertools.product(COMBINATIONS, RULES)
        if pair[0] != "sound"
        and pair not in (("gated", "centred"), ("gated", "clip"), ("gated", "clip_delta"))
    ],
)
@pytest.mark.parametrize("outcome", [RIGHT, WRONG])
def test_the_two_parts_of_a_reward_add_up(combination, credit, outcome):
    rule = RewardRule(
        combination=combination, credit=credit, process_weight=0.5, outcome_weight=0.3
    )
    score = scored(0.9, 0.2, 0.7)
    steps, whole = split_reward(score, outcome, rule)
    assert steps.steps == score.steps
    assert steps.total + whole == pytest.approx(rollout_reward(score, outcome, rule).total)


@pytest.mark.parametrize(("outcome", "earned"), [(RIGHT, 0.2), (WRONG, 0.0)])
def test_steps_that_only_weigh_are_beside_all_that_is_earned(outcome, earned):
    score = scored(0.9, 0.2, 0.7)
    steps, whole = split_reward(score, outcome, RewardRule(), "sound_prefix")
    assert whole == steps.total == pytest.approx(earned)
    assert steps.rewards == pytest.approx((0.9, -0.7, 0))
    # Where they are added, as to a critic's, the parts add up.
    steps, whole = split_reward(score, outcome, RewardRule(), "none")
    assert steps.total + whole == pytest.approx(earned)
    assert steps.total == pytest.approx(0.2)


def test_the_part_of_the_whole_response_is_the_outcome_to_the_last_bit():
    rule = RewardRule(combination="gated", outcome_weight=1.0)
    assert split_reward(scored(0.9, 0.1, 0.3), RIGHT, rule)[1] == 1.0
    assert split_reward(ITS_OWN, RIGHT, rule)[1] == 0.0
    assert split_reward(OURS, RIGHT, rule)[1] == 0.0
