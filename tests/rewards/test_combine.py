"""What rollouts earn under each rule, worked out by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.combine import (
    COMBINATIONS,
    DEFAULT_ADVANTAGE,
    RewardRule,
    advantage_for,
    check_fit,
    outcome_reward,
    rollout_reward,
    step_rewards,
)
from vrprm_reward.rewards.credit import RULES
from vrprm_reward.rewards.metrics import batch_metrics
from vrprm_reward.rewards.outcome import Outcome
from vrprm_reward.types import ProcessScore, Step

RIGHT, WRONG, UNKNOWN = Outcome(1.0), Outcome(0.0), Outcome(None, "no_reference", "none given")
P = [0.9, 0.4]


def scored(p):
    steps = tuple(Step(text="x", start=i, end=i + 1) for i in range(len(p)))
    return ProcessScore(status="scored", steps=steps, p_correct=tuple(p))


def unscored(status, reason="server_timeout"):
    return ProcessScore(status=status, reason=reason, detail="late")


@pytest.mark.parametrize(
    ("rule", "outcome", "expected"),
    [
        ({"combination": "sum", "credit": "raw"}, RIGHT, [0.9, 0.4, 1]),
        ({"combination": "sum", "credit": "raw"}, WRONG, [0.9, 0.4, 0]),
        (
            {"combination": "sum", "credit": "raw", "process_weight": 0.5, "outcome_weight": 2},
            RIGHT,
            [0.45, 0.2, 2],
        ),
        ({"combination": "sum", "credit": "centred"}, WRONG, [0.8, -0.2, 0]),
        ({"combination": "gated", "credit": "raw"}, RIGHT, [0.9, 0.4, 1]),
        ({"combination": "gated", "credit": "raw"}, WRONG, [0, 0, 0]),
        ({"combination": "gated"}, RIGHT, [0.9, -0.5, 1]),
        ({}, RIGHT, [0.9, -0.5, 0]),
        ({}, WRONG, [0.9, -0.5, -0.4]),
        ({}, Outcome(0.75), [0.9, -0.5, -0.1]),
        ({}, Outcome(0.25), [0.9, -0.5, -0.4]),
        ({"outcome_weight": 2}, RIGHT, [0.9, -0.5, 0.4]),
        ({"combination": "process", "credit": "raw"}, UNKNOWN, [0.9, 0.4, 0]),
        ({"combination": "outcome"}, RIGHT, [0, 0, 1]),
        ({"combination": "ps_grpo"}, RIGHT, [0, 0, 0.5]),  # falls by 5/9
        ({"combination": "ps_grpo", "ps_rho": 0.6}, RIGHT, [0, 0, 1]),
        ({"combination": "ps_grpo", "ps_gamma": 0.25}, RIGHT, [0, 0, 0.75]),
        ({"combination": "ps_grpo"}, WRONG, [0, 0, 0]),
    ],
)
def test_each_combination_gives_what_a_hand_gives(rule, outcome, expected):
    """The steps, and the end."""
    steps, end = step_rewards(P, outcome, RewardRule(**rule))
    assert [*steps, end] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("estimator", "better"),
    [
        ("leave_one_out", "running_min"),
        ("process_grpo", "raw"),
        ("group_mean", "running_min"),
    ],
)
def test_a_credit_of_differences_is_refused_where_it_means_something_else(estimator, better):
    with pytest.raises(InputError, match=f"made for .*same_step.*set credit={better}"):
        check_fit(RewardRule(combination="gated", credit="own"), estimator)
    check_fit(RewardRule(combination="gated", credit=better), estimator)
    check_fit(RewardRule(combination="outcome", credit="own"), estimator)


def test_the_default_credit_is_refused_where_steps_are_taken_for_scores():
    with pytest.raises(InputError, match=r"'running_min' is made for .*leave_one_out.* credit=raw"):
        check_fit(RewardRule(combination="gated"), "process_grpo")


@pytest.mark.parametrize("estimator", ["leave_one_out", "same_step", "process_grpo", "group_mean"])
def test_sound_goes_with_its_own_advantage_rule_and_that_with_nothing_else(estimator):
    with pytest.raises(InputError, match=f"made for .*sound_prefix.* '{estimator}'.*=gated"):
        check_fit(RewardRule(), estimator)
    with pytest.raises(InputError, match=r"made for .*'sound'.* 'ps_grpo'.*'leave_one_out'"):
        check_fit(RewardRule(combination="ps_grpo"), "sound_prefix")


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("credit", ["running_min", "own", "raw", "delta", "min_form"])
def test_every_rule_fits_the_advantage_rule_that_is_named_for_it(combination, credit):
    if combination == "sound" and credit != "running_min":
        with pytest.raises(ValidationError, match=f"'{credit}': leave credit=running_min"):
            RewardRule(combination=combination, credit=credit)
        return
    rule = RewardRule(combination=combination, credit=credit)
    check_fit(rule, advantage_for(rule))


def test_sound_has_no_weight_of_the_process_alone():
    with pytest.raises(ValidationError, match=r"process_weight is 0\.5: .* outcome_weight"):
        RewardRule(process_weight=0.5)


@pytest.mark.parametrize("credit", ["delta", "clip_delta"])
def test_differences_of_other_kinds_are_no_scores_either(credit):
    with pytest.raises(InputError, match=f"'{credit}' is made for .*leave_one_out.* credit=raw"):
        check_fit(RewardRule(combination="sum", credit=credit), "process_grpo")
    check_fit(RewardRule(combination="sum", credit=credit), "leave_one_out")


def test_the_default_rule_fits_the_default_advantage_rule_and_verls_own():
    for estimator in (DEFAULT_ADVANTAGE, "gae", "grpo"):
        check_fit(RewardRule(), estimator)
    check_fit(RewardRule(combination="gated", credit="own"), "same_step")


@settings(deadline=None)
@given(
    p=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    right=st.booleans(),
    combination=st.sampled_from(COMBINATIONS),
)
def test_by_default_no_number_of_steps_earns_more_than_two_or_less_than_an_unscorable_one(
    p, right, combination
):
    rule = RewardRule(combination=combination)
    total = rollout_reward(scored(p), RIGHT if right else WRONG, rule).total
    assert rule.lowest - 1e-9 <= total <= 2.0 + 1e-9


@pytest.mark.parametrize("credit", sorted(RULES))
def test_an_unscorable_response_earns_the_rules_lowest_reward_even_if_its_answer_is_right(credit):
    rule = RewardRule(combination="sum", credit=credit, process_weight=2.0)
    found = rollout_reward(unscored("unscored_response", "too_many_steps"), RIGHT, rule)
    assert found.rewards == (2.0 * RULES[credit].lowest,)
    assert (found.steps, found.masked, found.reason) == ((), False, "too_many_steps")
    explicit = RewardRule(combination="sum", credit=credit, unscorable_reward=-5)
    assert rollout_reward(unscored("unscored_response"), RIGHT, explicit).total == -5


@pytest.mark.parametrize("credit", sorted(RULES))
def test_a_right_answer_never_earns_less_than_a_wrong_one_unless_a_rule_says_so(credit):
    if credit in ("centred", "clip", "clip_delta"):
        with pytest.raises(ValidationError, match=f"'{credit}' a right one .* combination=sum"):
            RewardRule(combination="gated", credit=credit)
        return
    rules = [RewardRule(), RewardRule(combination="gated", credit=credit)]
    for p in ([0.0] * 9, [0.1] * 9, [0.9, 0.1, 0.0], [0.0, 1.0, 0.0]):
        for rule in rules:
            assert rollout_reward(scored(p), RIGHT, rule).total >= -1e-12


def test_what_we_could_not_score_is_masked_and_has_no_reward():
    found = rollout_reward(unscored("unscored_ours"), RIGHT)
    assert found.masked
    assert (found.rewards, found.total, found.reason) == ((), 0.0, "server_timeout")


def test_an_unknown_outcome_masks_exactly_where_the_rule_needs_it():
    found = rollout_reward(scored(P), UNKNOWN)
    assert (found.status, found.reason) == ("unscored_ours", "outcome_no_reference")
    assert not rollout_reward(scored(P), UNKNOWN, RewardRule(combination="process")).masked
    for combination in ("sound", "gated", "sum", "outcome", "ps_grpo"):
        with pytest.raises(ValueError, match=f"'{combination}' needs an outcome"):
            step_rewards(P, UNKNOWN, RewardRule(combination=combination))


def test_by_default_a_wrong_answer_earns_nothing_whatever_the_judge_says_of_its_steps():
    for p in ([1.0, 1.0], [0.9, 0.4, 0.7], [0.1] * 9, [0.3, 0.7, 0.1]):
        assert rollout_reward(scored(p), WRONG).total == 0
        assert rollout_reward(scored(p), RIGHT).total == pytest.approx(min(p))


def test_a_scored_rollout_has_a_reward_for_each_of_its_steps():
    found = rollout_reward(scored(P), RIGHT, RewardRule(combination="gated", credit="raw"))
    assert len(found.steps) == len(found.rewards) == 2
    assert found.total == pytest.approx(2.3)


def test_an_outcome_alone_rewards_the_whole_response():
    assert outcome_reward(RIGHT, RewardRule(outcome_weight=3)).rewards == (3.0,)
    assert outcome_reward(UNKNOWN).masked


def test_wrong_settings_are_named():
    with pytest.raises(ValidationError, match="combination"):
        RewardRule(combination="best")
    with pytest.raises(ValidationError, match="outcome_wieght"):
        RewardRule(outcome_wieght=1)
    with pytest.raises(ValueError, match="no steps"):
        step_rewards([], RIGHT, RewardRule())


def test_the_metrics_of_a_batch_by_hand():
    rule = RewardRule(combination="sum", credit="raw")
    batch = [
        rollout_reward(scored([0.9, 0.9]), RIGHT, rule),  # earns 2.8
        rollout_reward(scored([0.9, 0.1, 0.2, 0.4]), WRONG, rule),  # earns 1.6, wrong at step 2
        rollout_reward(unscored("unscored_response", "response_empty"), WRONG, rule),  # earns 0
        rollout_reward(unscored("unscored_ours"), RIGHT, rule),
    ]
    found = batch_metrics(batch, seconds=[1.0, 3.0])
    assert found == pytest.approx(
        {
            "vrprm/masked_share": 0.25,
            "vrprm/unscorable_share": 0.25,
            "vrprm/reason/response_empty": 0.25,
            "vrprm/reason/server_timeout": 0.25,
            "vrprm/p_correct/mean": (0.9 + 0.4) / 2,
            "vrprm/p_correct/min": 0.5,
            "vrprm/steps/mean": 3,
            "vrprm/steps/max": 4,
            "vrprm/first_error/step_1": 0,
            "vrprm/first_error/step_2": 0.5,
            "vrprm/first_error/step_3": 0,
            "vrprm/first_error/step_4": 0,
            "vrprm/first_error/later": 0,
            "vrprm/first_error/none": 0.5,
            "vrprm/reward/mean": 4.4 / 3,
            "vrprm/outcome/mean": 1 / 3,
            "vrprm/reward/right_outcome": 2.8,
            "vrprm/reward/wrong_outcome": 0.8,
            "vrprm/p_correct/right_outcome": 0.9,
            "vrprm/p_correct/wrong_outcome": 0.4,
            "vrprm/scoring_s/mean": 2,
            "vrprm/scoring_s/max": 3,
        }
    )


def test_an_unknown_outcome_that_is_not_needed_is_no_reason_for_a_missing_score():
    process, late = RewardRule(combination="process"), Outcome(0.0, "timeout")
    batch = [
        rollout_reward(scored(P), Outcome(None, "off"), process),
        rollout_reward(scored(P), late),
        rollout_reward(scored(P), UNKNOWN),
        rollout_reward(unscored("unscored_response", "too_many_steps"), late),
    ]
    found = batch_metrics(batch)
    assert {name: value for name, value in found.items() if "reason/" in name} == {
        "vrprm/outcome_reason/off": 0.25,
        "vrprm/outcome_reason/timeout": 0.25,
        "vrprm/reason/outcome_no_reference": 0.25,
        "vrprm/reason/too_many_steps": 0.25,
    }


def test_metrics_of_nothing_claim_nothing():
    assert batch_metrics([]) == {}
    masked = batch_metrics([rollout_reward(unscored("unscored_ours"), UNKNOWN)])
    assert set(masked) == {
        "vrprm/masked_share",
        "vrprm/unscorable_share",
        "vrprm/reason/server_timeout",
    }


def test_a_first_error_behind_the_fourth_step_counts_as_later():
    found = batch_metrics([rollout_reward(scored([0.9] * 6 + [0.1]), RIGHT)])
    assert found["vrprm/first_error/later"] == 1
