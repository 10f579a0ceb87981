"""The toy's policy and what is learnt from it, at its edges."""

import pytest
import torch

from examples.tiny_rl.toy import (
    DO,
    LONGEST,
    PARTS,
    SKILLS_OF,
    Choice,
    Policy,
    Response,
    Toy,
    compared,
    learn,
    train,
)
from vrprm_reward.rewards.combine import RewardRule

ASKED = [skills.start for skills in SKILLS_OF]
ABLE = Toy(able=0.9999, habits=(0, 0), errors=0, luck=0)


def answers(toy, count=20):
    policy = Policy(toy, seed=0)
    policy.probabilities()
    return [policy.answer(ASKED) for _ in range(count)]


def test_a_policy_that_can_do_everything_is_right_and_sound_with_one_step_for_each_part():
    for response in answers(ABLE):
        assert (response.right, response.sound) == (True, True)
        assert len(response.p_correct) == PARTS == len(response.choices) - 1
        assert min(response.p_correct) > 0.5


def test_what_is_built_on_something_left_out_is_wrong_and_right_by_luck_only():
    lazy = Toy(able=0.9999, habits=(0, 0.9999), errors=0, luck=1)
    for response in answers(lazy):
        assert not response.sound
        assert response.right is bool(response.p_correct)


def test_a_response_that_never_ends_has_no_answer():
    for response in answers(Toy(habits=(0.9999, 0), luck=1)):
        assert (response.pads, len(response.choices), response.right) == (LONGEST, LONGEST, False)


def test_a_seed_gives_the_same_run_and_learning_shows():
    toy = Toy(updates=14, problems=2, rate=0.4, habits=(0, 0))
    found = train(toy, RewardRule(combination="process", credit="own"), seed=1)
    assert found == train(toy, RewardRule(combination="process", credit="own"), seed=1)
    before = train(Toy(updates=14, problems=2, rate=1e-6, habits=(0, 0)), RewardRule(), seed=1)
    assert found["sound"] > before["sound"] + 0.1


def test_the_advantages_reach_the_choices_that_they_are_of():
    policy = Policy(Toy(), seed=0)
    probabilities = policy.probabilities()
    slopes = [torch.zeros_like(table) for table in policy.tables]
    right = Response([0.9], [[Choice(1, 3, 0)], [Choice(0, PARTS, DO)]], right=True)
    wrong = Response([0.9], [[Choice(1, 4, 2)]])
    learn([right, wrong], RewardRule(combination="outcome"), probabilities, slopes)
    # Right minus the mean of the others is 1, wrong -1; the slope of log p is one-hot minus p.
    expected = -probabilities[1][3]
    expected[0] += 1
    assert slopes[1][3].tolist() == pytest.approx(expected.tolist())
    expected = probabilities[1][4].clone()
    expected[2] -= 1
    assert slopes[1][4].tolist() == pytest.approx(expected.tolist())
    assert slopes[0][PARTS, DO] == pytest.approx(1 - float(probabilities[0][PARTS, DO]))
    assert not slopes[1][5].any()


def test_a_table_has_a_row_for_each_rule():
    (row,) = compared(Toy(updates=2, problems=1), {"outcome": RewardRule()}, 2)
    assert row.keys() == {"rule", "right", "sound", "steps", "pads", "left out"}


@pytest.mark.parametrize("rule", [RewardRule(), RewardRule(combination="gated", credit="own")])
def test_a_group_of_right_and_alike_responses_teaches_little(rule):
    toy = Toy(able=0.9999, habits=(0, 0), errors=0, luck=0, updates=3, sure=(3.5, 0.0))
    assert train(toy, rule, seed=0)["sound"] == 1.0
