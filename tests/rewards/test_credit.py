"""Credit rules, worked out by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrprm_reward.rewards.credit import RULES, credit, min_form, ps_grpo

P = [0.9, 0.4, 0.7]
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def test_sure_steps_more_hardly_raise_the_min_form_and_a_weak_one_left_out_does():
    weak, others = 0.05, [0.9, 0.9, 0.9, 0.9, 0.5]
    padded = [0.5, *[0.99] * 13]
    found = [math.fsum(min_form(p)) for p in ([0.5], padded, [weak, *others], others)]
    assert found == pytest.approx([0.5, 0.543, 0.056, 0.527], abs=1e-3)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("raw", [0.9, 0.4, 0.7]),
        ("centred", [0.8, -0.2, 0.4]),
        ("hard", [1.0, 0.0, 1.0]),
        ("own", [0.5, -0.3, 0.7]),
        ("running_min", [0.9, -0.5, 0.0]),
        ("delta", [0.5, 0.4, 0.0]),
        ("clip", [0.0, -0.1, 0.0]),
        ("clip_delta", [0.1, -0.1, 0.0]),
    ],
)
def test_each_rule_gives_what_a_hand_gives(rule, expected):
    assert credit(P, rule) == pytest.approx(expected)


def test_the_min_form_of_two_steps_by_hand():
    # exp(-5) / (exp(-5) + exp(-2)) = 0.047426 of 0.5, the rest of 0.2.
    assert min_form([0.5, 0.2]) == pytest.approx([0.023713, 0.190515], abs=1e-6)


@settings(deadline=None)
@given(probabilities)
def test_the_sum_of_the_min_form_lies_between_the_minimum_and_the_mean(p):
    total = math.fsum(min_form(p))
    assert min(p) - 1e-9 <= total <= math.fsum(p) / len(p) + 1e-9


@settings(deadline=None)
@given(probabilities)
def test_under_own_the_return_to_go_of_a_step_is_its_own_probability(p):
    rewards = credit(p, "own")
    assert [math.fsum(rewards[k:]) for k in range(len(p))] == pytest.approx(p, abs=1e-9)


@settings(deadline=None)
@given(probabilities.filter(lambda p: len(p) > 1))
def test_delta_telescopes_to_the_first_step_however_many_there_are(p):
    assert math.fsum(credit(p, "delta")) == pytest.approx(p[0], abs=1e-9)


@settings(deadline=None)
@given(probabilities.filter(bool))
def test_the_running_minimum_adds_up_to_the_smallest_and_is_settled_step_by_step(p):
    rewards = credit(p, "running_min")
    for k in range(1, len(p) + 1):
        assert math.fsum(rewards[:k]) == pytest.approx(min(p[:k]), abs=1e-9)
        assert credit(p[:k], "running_min") == rewards[:k]


@settings(deadline=None)
@given(probabilities, st.sampled_from(sorted(RULES)))
def test_no_step_earns_less_than_the_lowest_reward_of_its_rule(p, rule):
    rewards = credit(p, rule)
    assert len(rewards) == len(p)
    # What the running minimum takes back has been earned before.
    least = math.fsum(rewards) if rule == "running_min" else min(rewards)
    assert least >= RULES[rule].lowest - 1e-12


@pytest.mark.parametrize("rule", ["delta", "clip_delta"])
def test_a_single_step_earns_nothing_by_differences(rule):
    assert credit([0.2], rule) == [0.0]


@pytest.mark.parametrize(
    ("p", "correct", "expected"),
    [
        ([0.9, 0.8], True, 1.0),  # falls by 1/9
        ([0.9, 0.6], True, 0.5),  # falls by 1/3
        ([0.0, 0.5, 0.5], True, 1.0),  # a step of probability 0 cannot fall
        ([0.9, 0.1, 0.9], True, 0.5),
        ([0.9, 0.8], False, 0.0),
        ([0.4], True, 1.0),
    ],
)
def test_ps_grpo_halves_a_right_answer_after_a_fall(p, correct, expected):
    assert ps_grpo(p, correct) == expected


@pytest.mark.parametrize("p", [[1.2], [float("nan")]])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"step 0 has p_correct .* not in \[0, 1\]"):
        credit(p, "raw")


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="unknown credit rule 'best'"):
        credit(P, "best")
    with pytest.raises(ValueError, match="temperature is 0"):
        min_form(P, temperature=0)
