"""Figures of the demo evaluation, worked out by hand."""

import math

import pytest

from vrprm_reward import ProcessScore, Step, load_profile
from vrprm_reward.demo import world
from vrprm_reward.demo.evaluate import (
    cells_noted_right,
    expected_calibration_error,
    figures,
    frames_of,
    held_out,
    rollout_of,
    with_shuffled_images,
)
from vrprm_reward.demo.recipe import READING_PROFILES


def scored(*p_correct: float) -> ProcessScore:
    steps = tuple(Step(text="x", start=2 * i, end=2 * i + 1) for i in range(len(p_correct)))
    return ProcessScore(status="scored", steps=steps, p_correct=p_correct)


def test_calibration_error_is_the_mean_gap_of_bins():
    # Bin 0.9..1.0 holds 0.95, 0.95 (labels 1, 0): gap |1.9 - 1| = 0.9.
    # Bin 0.2..0.3 holds 0.25 (label 0): gap 0.25. Bin 1.0 counts to the last bin.
    assert expected_calibration_error([0.95, 0.95, 0.25], [1, 0, 0]) == pytest.approx(1.15 / 3)
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0


def test_where_nothing_is_scored_there_is_no_calibration_error():
    lost = ProcessScore(status="unscored_ours", reason="engine", detail="x")
    result = figures([(1, 0)], [lost], 1.0)
    assert math.isnan(result.ece)
    assert (result.macro_f1, result.unscored) == (0.0, 1)


def test_frames_are_asked_of_who_was_taught_them():
    asked = {name: who for name, _, who in frames_of("demo")}
    assert asked["demo"] == asked["score_json"] == "demo"
    assert asked["score_list"] == asked["multi_turn_no_think"] == "demo_no_think"
    assert {who for _, _, who in frames_of("mine")} == {"mine"}
    assert [name for name, _, _ in frames_of("demo_no_think")] == [*READING_PROFILES]
    assert all(profile.pixels == load_profile("demo").pixels for _, profile, _ in frames_of("demo"))


def test_macro_f1_is_the_mean_of_both_classes():
    # true 1 1 0 0, judged 1 0 0 0: F1(1) = 2/3, F1(0) = 4/5.
    result = figures([(1, 1, 0, 0)], [scored(0.9, 0.1, 0.1, 0.1)], 1.0)
    assert result.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert result.steps == 4


def test_steps_of_an_unscored_rollout_count_as_judged_wrongly():
    lost = ProcessScore(status="unscored_ours", reason="engine", detail="x")
    result = figures([(1, 0), (1, 0)], [scored(0.9, 0.1), lost], 1.0)
    assert result.unscored == 1
    assert result.macro_f1 == pytest.approx(0.5)


def test_held_out_rollouts_keep_their_steps_and_shuffling_moves_only_the_images():
    examples = held_out(5)
    rollouts = [rollout_of(example) for example in examples]
    for example, rollout in zip(examples, rollouts, strict=True):
        assert [s.text for s in rollout.steps or ()] == [s.text for s in example.steps]
    shuffled = with_shuffled_images(examples)
    assert [r.response for r in shuffled] == [r.response for r in rollouts]
    assert shuffled[0].problem.images[0] is examples[1].image


def test_cells_count_as_noted_only_where_the_thinking_describes_them_as_they_are():
    example = held_out(1)[0]
    lines = world.written(world.notes(example.scene)).split("\n")
    half_right = "\n".join([*lines[:4], *("somewhere something" for _ in range(5))])
    scores = [
        scored(0.5).model_copy(update={"thinking": thinking})
        for thinking in ("\n".join(lines), half_right, "")
    ]
    assert [cells_noted_right([example], [score]) for score in scores] == [1, 4 / 9, 0]
