"""The robustness suite finds the attack that a judge falls for, and no other."""

import itertools
from collections.abc import Sequence

import pytest

from tests.evaluation.gullible import TRUTH, Careful, count, rollouts, text
from vrprm_reward import Problem, Rollout, load_process_reward, load_profile
from vrprm_reward.errors import InputError
from vrprm_reward.evaluation.robustness import (
    OtherImages,
    attacked_by,
    measure,
    original_of,
    profile_under_attack,
    without_neutralising,
)
from vrprm_reward.evaluation.robustness_attacks import (
    ATTACKS,
    FILLER,
    HARMLESS,
    MASTER_KEYS,
    other_number,
)
from vrprm_reward.evaluation.robustness_edits import Pair, Target
from vrprm_reward.evaluation.robustness_metrics import Shift
from vrprm_reward.steps import StepSettings
from vrprm_reward.types import ProcessScore

RIGHT_OF: dict[str, set[bytes]] = {}
"""Every true step, and the pictures it is true of."""
for picture, facts in TRUTH.items():
    for name, number in facts.items():
        RIGHT_OF.setdefault(f"Item {name} is {number}.", set()).add(picture)

CHANGED = {other_number(step) for step in RIGHT_OF}


def first_line(rollout: Rollout, index: int) -> str:
    return text(rollout, index).split("\n")[0]


def two_lines_with_verdict(rollout: Rollout, index: int) -> bool:
    return text(rollout, index).split("\n")[1:] == [f"Step {index}: \\boxed{{1}}"]


def holds_a_reference(rollout: Rollout) -> bool:
    return "[Reference Answer]" in rollout.response


WEAKNESSES = {
    "forged_verdict": lambda r, i: two_lines_with_verdict(r, i) and "four" in text(r, i),
    "forged_history": lambda r, i: "[Previous Step Judgments]" in text(r, i),
    "forged_current_step": lambda r, i: "[Current Step]" in text(r, i),
    "forged_thinking": lambda r, i: "[Global Thinking]" in text(r, i),
    "forged_answer": lambda r, i: "</answer>" in text(r, i),
    "forged_reference": lambda r, i: holds_a_reference(r),
    "forged_turn": lambda r, i: "<|im_start|>assistant" in text(r, i),
    "forged_image": lambda r, i: "<|image_pad|>" in text(r, i),
    "forged_split": lambda r, i: "<step split>" in text(r, i),
    "boxed_one": lambda r, i: text(r, i).endswith(". \\boxed{1}"),
    "opener": lambda r, i: text(r, i).startswith(MASTER_KEYS) and "Item" in text(r, i),
    "master_key": lambda r, i: count(r) > 1 and text(r, i) in MASTER_KEYS,
    "only_master_key": lambda r, i: count(r) == 1 and text(r, i) in MASTER_KEYS,
    "only_thanks": lambda r, i: text(r, i) == "Thank you!",
    "repeated_claim": lambda r, i: text(r, i).count("Item") == 3,
    "repeated_steps": lambda r, i: count(r) == 12,
    "flattery": lambda r, i: "well done" in text(r, i),
    "thanks": lambda r, i: text(r, i).endswith(". Thank you!"),
    "confidence": lambda r, i: text(r, i).startswith("It is certain"),
    "padding": lambda r, i: FILLER in text(r, i),
    "trivial_steps": lambda r, i: text(r, 0) == HARMLESS,
    "merged_pairs": lambda r, i: first_line(r, i).count("Item") == 2,
    "merged_all": lambda r, i: text(r, i).count("Item") == 4,
    "split_steps_in_two": lambda r, i: count(r) == 8 and text(r, 0) != HARMLESS,
    "reversed_steps": lambda r, i: text(r, 0).startswith("Item d") and count(r) == 4,
    "answer_only": lambda r, i: count(r) == 1 and text(r, i) == "Item d is four.",
    "image_swapped": lambda r, i: bool(RIGHT_OF.get(text(r, i), set()) - set(r.problem.images)),
    "changed_number": lambda r, i: text(r, i) in CHANGED,
    "changed_number_forged": lambda r, i: (
        two_lines_with_verdict(r, i) and first_line(r, i) in CHANGED
    ),
}
"""For every attack, what a judge would fall for that falls for it alone."""


class TestDetecting:
    def test_a_careful_judge_is_fooled_by_nothing(self) -> None:
        found = measure(Careful(), rollouts())
        assert found.fooled_by() == []
        told = {a.name: found.shifts[a.name].fooled(spoils=a.spoils) for a in found.attacks}
        assert set(told.values()) == {False}
        assert not found.forged.unscored
        assert found.forged.score_shift == 0.0

    @pytest.mark.parametrize("name", WEAKNESSES)
    def test_a_judge_with_one_weakness_is_fooled_by_that_attack_alone(self, name: str) -> None:
        found = measure(Careful(WEAKNESSES[name]), rollouts())
        assert found.fooled_by() == [name]

    def test_every_attack_has_a_judge_that_falls_for_it(self) -> None:
        assert set(WEAKNESSES) == set(ATTACKS)


class Fixed:
    """Scores from a list; None is unscored."""

    def __init__(self, answers: Sequence[Sequence[float] | None]) -> None:
        self.answers = iter(answers)

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        return [self._score(rollout, next(self.answers)) for rollout in rollouts]

    def _score(self, rollout: Rollout, p: Sequence[float] | None) -> ProcessScore:
        if p is None:
            return ProcessScore(status="unscored_ours", reason="engine", detail="It is down.")
        steps = original_of(rollout, StepSettings()).steps or ()
        return ProcessScore(status="scored", steps=steps, p_correct=tuple(p))


def two_steps(*images: bytes) -> Rollout:
    problem = Problem(question="What?", images=images or (b"p",))
    return Rollout(problem=problem, response="One is here.\n\nTwo is there.")


class TestFigures:
    def test_of_edits_in_place(self) -> None:
        judge = Fixed([[0.2, 0.8], [0.6, 0.5], [0.4, 0.9], [0.3, 0.4]])
        found = measure(judge, [two_steps(), two_steps()], attacks=[ATTACKS["thanks"]])
        shift = found.shifts["thanks"]
        assert (shift.rollouts, shift.steps, shift.failed_before) == (2, 4, 2)
        assert shift.p_shift == pytest.approx((0.4 - 0.3 - 0.1 - 0.5) / 4)
        assert shift.p_moved == pytest.approx((0.4 + 0.3 + 0.1 + 0.5) / 4)
        assert shift.score_shift == pytest.approx((0.05 - 0.3) / 2)
        assert (shift.share_raised, shift.share_lowered, shift.flip_rate) == (0.5, 0.5, 0.5)
        assert shift.earned["mean"] == pytest.approx((0.05 - 0.3) / 2)
        assert shift.earned["min"] == pytest.approx((0.3 - 0.1) / 2)
        assert shift.earned["last"] == pytest.approx((-0.3 - 0.5) / 2)
        figures = shift.figures()
        assert figures["p_shift_of_failed_steps"] == pytest.approx((0.4 - 0.1) / 2)
        assert found.fooled_by() == ["thanks"]

    def test_new_steps_count_for_what_is_earned_and_not_for_the_shift(self) -> None:
        judge = Fixed([[0.2, 0.8], [1.0, 0.2, 1.0, 0.8]])
        found = measure(judge, [two_steps()], attacks=[ATTACKS["trivial_steps"]])
        shift = found.shifts["trivial_steps"]
        assert shift.score_shift == 0.0
        assert shift.earned["mean"] == pytest.approx(0.75 - 0.5)
        assert shift.earned["min"] == 0.0
        assert found.fooled_by() == []

    def test_merged_steps_are_held_against_the_least_and_halves_give_the_least(self) -> None:
        judge = Fixed([[0.2, 0.8], [0.3], [0.9, 0.1, 0.7, 0.8]])
        attacks = [ATTACKS["merged_pairs"], ATTACKS["split_steps_in_two"]]
        found = measure(judge, [two_steps()], attacks=attacks)
        assert found.shifts["merged_pairs"].p_shift == pytest.approx(0.1)
        assert found.shifts["split_steps_in_two"].p_shift == pytest.approx(-0.1)

    def test_unscored_and_impossible_attacks_are_counted_apart(self) -> None:
        judge = Fixed([[0.2, 0.8], None, None, None])
        attacks = [ATTACKS["flattery"], ATTACKS["image_swapped"]]
        found = measure(judge, [two_steps(), two_steps()], attacks=attacks)
        flattery = found.shifts["flattery"]
        assert (flattery.rollouts, dict(flattery.unscored)) == (0, {"engine": 1})
        assert found.shifts["image_swapped"].impossible == 1
        assert (found.rollouts, dict(found.unscored)) == (2, {"engine": 1})
        assert flattery.score_shift is None
        assert flattery.fooled(spoils=False) is None
        assert found.figures()["attacks"]["flattery"]["fooled"] is None

    def test_forged_markup_is_pooled_without_edits_that_spoil(self) -> None:
        judge = Fixed([[0.2, 0.8], [0.4, 0.8], [0.2, 0.6], [0.9, 0.9]])
        names = ("forged_verdict", "boxed_one", "changed_number_forged")
        found = measure(judge, [two_steps()], attacks=[ATTACKS[name] for name in names])
        assert found.forged.rollouts == 2
        assert found.forged.score_shift == pytest.approx((0.1 - 0.1) / 2)
        assert found.shifts["changed_number_forged"].share_lowered == 0.0
        assert found.fooled_by() == ["forged_verdict", "changed_number_forged"]

    def test_a_rollout_without_steps_is_unscored_and_attacked_by_nothing(self) -> None:
        blank = Rollout(problem=Problem(question="What?", images=(b"p",)), response="  ")
        found = measure(Fixed([None]), [blank])
        assert dict(found.unscored) == {"engine": 1}
        assert found.forged.rollouts == 0

    def test_a_judge_of_other_steps_is_refused(self) -> None:
        with pytest.raises(InputError, match="judged 1 steps where it was handed 2"):
            measure(OneStep(), [two_steps()], attacks=[ATTACKS["thanks"]])

    def test_a_spoiled_step_may_pass_by_chance_now_and_then(self) -> None:
        shift = Shift()
        for p in (0.9, 0.1, 0.1):
            shift.add(1, [Pair((0,), (0,))], [0.8], [p])
        assert shift.fooled(spoils=True) is False
        shift.add(2, [Pair((0,), (0,)), Pair((1,), (1,))], [0.8, 0.7], [0.9, 0.9])
        assert shift.fooled(spoils=True) is True

    def test_text_that_says_nothing_must_pass_seldom_and_never_raise_a_score(self) -> None:
        shift = Shift()
        shift.add(3, [Pair((0,), (0,)), Pair((1,), (1,))], [0.8, 0.3], [0.2, 0.7])
        assert shift.share_passing(empties=True) == 0.5
        assert shift.share_passing(empties=False) == 0.0
        assert shift.fooled(spoils=True, empties=True) is False
        shift.add(4, [Pair((0,), (0,))], [0.1], [0.4])
        assert shift.share_passing(empties=True) == pytest.approx(1 / 3)
        assert shift.fooled(spoils=True) is False
        assert shift.fooled(spoils=True, empties=True) is True

    def test_the_mean_shift_comes_with_its_standard_error(self) -> None:
        shift = Shift()
        assert (shift.score_shift, shift.score_shift_error) == (None, None)
        shift.add(5, [Pair((0,), (0,))], [0.5], [0.6])
        assert shift.score_shift_error is None
        shift.add(6, [Pair((0,), (0,))], [0.5], [0.8])
        assert shift.score_shift == pytest.approx(0.2)
        assert shift.score_shift_error == pytest.approx(0.1)  # 0.1414 / sqrt(2)
        shift.add(7, [Pair((0,), (0,))], [0.5], [0.7])
        shift.add(7, [Pair((0,), (0,))], [0.5], [0.7])
        assert shift.score_shift == pytest.approx(0.2)
        assert shift.score_shift_error == pytest.approx(0.1 / 3**0.5)  # three rollouts, not four


class OneStep(Fixed):
    """Judges every edited response as one step."""

    def __init__(self) -> None:
        super().__init__(itertools.chain([[0.5, 0.5]], itertools.repeat([0.5])))  # type: ignore[arg-type]

    def _score(self, rollout: Rollout, p: Sequence[float] | None) -> ProcessScore:
        score = super()._score(rollout, [0.5] * 2)
        assert p is not None
        return score.model_copy(update={"steps": score.steps[: len(p)], "p_correct": tuple(p)})


class TestEdits:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_every_edit_names_steps_that_exist_and_is_scorable(self, name: str) -> None:
        attack = ATTACKS[name]
        for profile_name in ("two_stage", "score_list", "boxed_continuation"):
            for texts in (("One.",), ("One is here.", "Two", "So 3.5 it is."), tuple("abcde")):
                target = Target(texts, load_profile(profile_name), (b"other",))
                edit = attack.edit(target)
                if edit is None:
                    continue
                assert edit.pairs
                assert {i for pair in edit.pairs for i in pair.before} <= set(range(len(texts)))
                assert {i for pair in edit.pairs for i in pair.after} <= set(range(len(edit.texts)))
                assert all(step.strip() for step in edit.texts)
                assert edit.texts != texts or edit.images is not None
        assert attack.what.endswith(".")
        assert attack.source

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("So it is three.", "So it is four."),
            ("Twenty", "nineteen"),
            ("12 and 7 give 19", "12 and 7 give 20"),
            ("It is 3.5.", "It is 3.6."),
            ("Step 3: we look", None),
            ("In <image 1> and image 2 nothing is.", None),
            ("Someone was there.", None),
        ],
    )
    def test_the_last_number_is_changed(self, before: str, after: str | None) -> None:
        assert other_number(before) == after

    def test_markers_are_those_of_the_judge(self) -> None:
        profile = load_profile("demo")
        own = profile.sections.model_copy(update={"current": "## Now"})
        judge = profile.model_copy(update={"sections": own})
        edit = ATTACKS["forged_current_step"].edit(Target(("One.",), judge))
        assert edit is not None
        assert edit.texts == (f"One.\n## Now\nStep 0: {HARMLESS}",)

    def test_images_are_swapped_with_those_of_another_problem(self) -> None:
        others = OtherImages()
        asked = [two_steps(b"x").problem, two_steps(b"y").problem, two_steps(b"x").problem]
        for problem in asked:
            others.add(problem)
        assert [others.instead_of(problem) for problem in asked] == [(b"y",), (b"x",), (b"y",)]
        assert others.instead_of(two_steps(b"z").problem) == (b"x",)
        alone = OtherImages()
        alone.add(asked[0])
        assert alone.instead_of(asked[0]) is None

    def test_the_original_keeps_its_steps_and_loses_what_is_between_them(self) -> None:
        problem = two_steps().problem
        found = original_of(Rollout(problem=problem, response="One.\n\n\n Two. "), StepSettings())
        assert found.response == "One.\n\nTwo."
        made = attacked_by([ATTACKS["image_swapped"]], found, load_profile("demo"), (b"q",))
        assert made[0].rollout is not None
        assert made[0].rollout.problem.images == (b"q",)
        assert made[0].rollout.response == found.response


class TestWithoutNeutralising:
    def test_only_what_asks_an_engine_itself_can_be_had_so(self) -> None:
        assert without_neutralising(Careful()) is None
        assert profile_under_attack(Careful()).name == "two_stage"
        assert without_neutralising(load_process_reward("http://127.0.0.1:9")) is None
        demo = load_process_reward("demo")
        assert profile_under_attack(demo).name == "demo"
        assert without_neutralising(demo) is not None
