import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from vrprm_reward.evaluation.metrics import Calibration, Measured, first_error_of

labels = st.sampled_from([1, 0, -1])
probability = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
step = st.tuples(labels, probability)
rollout = st.tuples(st.lists(step, min_size=1, max_size=8), st.booleans())


def measured(rollouts) -> Measured:
    found = Measured()
    for steps, scored in rollouts:
        found.add([label for label, _ in steps], [p for _, p in steps] if scored else None)
    return found


def sklearn_f1(pairs) -> tuple[float, float, float]:
    """F1 of both classes and their mean, a missing prediction being a class of its own."""
    true = [label for label, _ in pairs]
    told = [2 if p is None else 1 if p >= 0.5 else -1 for _, p in pairs]
    if not true:
        return 0.0, 0.0, 0.0
    each = f1_score(true, told, labels=[1, -1], average=None, zero_division=0)
    return each[0], each[1], each.mean()


@given(st.lists(rollout, max_size=12))
def test_f1_equals_that_of_scikit_learn(rollouts) -> None:
    found = measured(rollouts)
    pairs = [
        (label, p if scored else None)
        for steps, scored in rollouts
        for label, p in steps
        if label != 0
    ]
    official = found.official
    assert (official.correct_f1, official.incorrect_f1, official.macro_f1) == pytest.approx(
        sklearn_f1(pairs)
    )
    alone = found.scored_only
    assert (alone.correct_f1, alone.incorrect_f1, alone.macro_f1) == pytest.approx(
        sklearn_f1([(label, p) for label, p in pairs if p is not None])
    )


@pytest.mark.filterwarnings("ignore:.*ill-defined")
def test_thousands_of_random_steps_agree_with_scikit_learn_at_every_threshold() -> None:
    rng = random.Random(3)
    found = Measured()
    true: list[int] = []
    ps: list[float | None] = []
    for _ in range(500):
        row = rng.choices([1, 0, -1], [6, 1, 3], k=rng.randrange(1, 15))
        p = [rng.random() for _ in row] if rng.random() < 0.9 else None
        found.add(row, p)
        for index, label in enumerate(row):
            if label:
                true.append(label)
                ps.append(None if p is None else p[index])
    for threshold, confusion in found.by_threshold.items():
        told = [2 if p is None else 1 if p >= threshold else -1 for p in ps]
        expected = f1_score(true, told, labels=[1, -1], average="macro", zero_division=0)
        assert confusion.macro_f1 == pytest.approx(expected)
    assert found.official.steps == len(true)
    assert found.official.invalid == ps.count(None)


def test_an_unscored_rollout_is_missed_and_never_a_false_alarm() -> None:
    found = measured([([(1, 0.9), (-1, 0.1)], True), ([(1, 0.9), (-1, 0.1)], False)])
    # Each class: one hit, one missed, no false alarm: 2 / 3.
    assert found.official.correct_f1 == pytest.approx(2 / 3)
    assert found.official.incorrect_f1 == pytest.approx(2 / 3)
    assert found.scored_only.macro_f1 == 1.0
    assert found.official.invalid == 2
    assert found.figures()["scored_only"]["coverage"] == 0.5  # type: ignore[index]


def test_neutral_steps_are_left_out_of_everything_but_their_count() -> None:
    with_neutral = measured([([(1, 0.9), (0, 0.1), (-1, 0.2), (0, 0.9)], True)])
    without = measured([([(1, 0.9), (-1, 0.2)], True)])
    assert with_neutral.neutral == 2
    assert with_neutral.official == without.official
    assert with_neutral.calibration == without.calibration


def test_without_any_step_there_are_zeros_and_nulls() -> None:
    for found in (Measured(), measured([([(0, 0.5)], True)])):
        figures = found.figures()
        assert figures["macro_f1"] == 0.0
        assert figures["expected_calibration_error"] is None
        assert figures["first_error_accuracy"] is None


def test_where_nothing_is_scored_there_are_no_figures_of_what_is() -> None:
    found = measured([([(1, 0.9), (-1, 0.1)], False)])
    assert found.figures()["macro_f1"] == 0.0
    assert found.figures()["scored_only"] == {
        "coverage": 0.0,
        "macro_f1": None,
        "correct_f1": None,
        "incorrect_f1": None,
        "first_error_accuracy": None,
    }


@pytest.mark.parametrize(
    ("labels", "verdicts", "found"),
    [
        ([1, -1, -1], [True, False, True], (1, 1)),
        ([1, 1], [True, True], (None, None)),
        ([1, 0, -1], [True, False, True], (2, None)),
        ([-1, 1], [True, False], (0, 1)),
    ],
)
def test_the_first_error_by_label_and_by_verdict(labels, verdicts, found) -> None:
    assert first_error_of(labels, verdicts) == found


def test_first_error_accuracy_counts_unscored_rollouts_as_missed() -> None:
    found = measured(
        [
            ([(1, 0.9), (-1, 0.1)], True),
            ([(1, 0.9), (1, 0.1)], True),
            ([(1, 0.9)], False),
            ([(0, 0.9)], True),
        ]
    )
    figures = found.figures()
    assert figures["first_error_accuracy"] == pytest.approx(1 / 3)
    assert figures["scored_only"]["first_error_accuracy"] == 0.5  # type: ignore[index]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_reliability_equals_that_of_scikit_learn(steps) -> None:
    found = Calibration()
    for p, correct in steps:
        found.add(p, correct=correct)
    # scikit-learn's bins are closed above, ours below: keep off the edges.
    if any(abs(p * 10 - round(p * 10)) < 1e-6 for p, _ in steps):
        return
    shares, means = calibration_curve([c for _, c in steps], [p for p, _ in steps], n_bins=10)
    assert [b["share_correct"] for b in found.bins()] == pytest.approx(list(shares))
    assert [b["mean_p"] for b in found.bins()] == pytest.approx(list(means))
    weights = [b["steps"] / len(steps) for b in found.bins()]
    gaps = [abs(s - m) for s, m in zip(shares, means, strict=True)]
    assert found.error == pytest.approx(sum(w * g for w, g in zip(weights, gaps, strict=True)))


def test_the_calibration_error_by_hand() -> None:
    found = Calibration()
    for p, correct in [(0.95, True), (0.85, False), (0.82, True), (1.0, True)]:
        found.add(p, correct=correct)
    # Bin .8: mean .835, share .5, weight 1/2; bin .9: mean .975, share 1, weight 1/2.
    assert found.error == pytest.approx(0.5 * 0.335 + 0.5 * 0.025)


def test_as_many_probabilities_as_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="1 probabilities for 2 labels"):
        Measured().add([1, 1], [0.5])
