"""Aggregations, worked out by hand."""

import pytest

from vrprm_reward.rewards.aggregate import AGGREGATIONS, aggregate, first_error

P = [0.9, 0.8, 0.25, 0.5]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", 2.45 / 4),
        ("min", 0.25),
        ("product", 0.9 * 0.8 * 0.25 * 0.5),
        ("last", 0.5),
        ("first_error", 2 / 4),
    ],
)
def test_each_rule_gives_what_a_hand_gives(rule, expected):
    assert aggregate(P, rule) == pytest.approx(expected)


def test_all_rules_agree_on_a_single_step_but_first_error_is_all_or_nothing():
    assert [aggregate([0.75], rule) for rule in AGGREGATIONS] == [0.75, 0.75, 0.75, 0.75, 1.0]
    assert aggregate([0.25], "first_error") == 0.0


def test_the_first_error_is_the_first_step_below_the_threshold():
    assert first_error(P) == 2
    assert first_error(P, threshold=0.85) == 1
    assert first_error(P, threshold=0.1) is None


@pytest.mark.parametrize("p", [[], [1.5], [-0.1], [float("nan")]])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"no steps|not in \[0, 1\]"):
        aggregate(p, "mean")


def test_an_unknown_rule_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'median'; choose one of mean, min"):
        aggregate(P, "median")
