"""The demo world's labels, checked against an independent reading of the written steps."""

import random
import re

import pytest
from PIL import Image

from vrprm_reward.demo import world
from vrprm_reward.demo.questions import QUESTION_TYPES
from vrprm_reward.demo.scene import COLUMNS, PLACES, Kind, Scene, Thing, draw

EXAMPLES = [world.random_example(random.Random(seed)) for seed in range(400)]
COUNT = re.compile(r"(\d+) ((?:red|green|blue|yellow) )?(shape|circle|square|triangle|star)s?\b")
CLAIMED_SUM = re.compile(r"(\d+(?: [+*-] \d+)+) = (\d+)")
PLACE = re.compile(r"(top|middle|bottom) (left|center|right)")


def _calculate(words: list[str]) -> int:
    """A sum or product from left to right: steps of the world hold one kind of operator each."""
    value = int(words[0])
    for operator, number in zip(words[1::2], words[2::2], strict=True):
        value = {"+": value + int(number), "-": value - int(number), "*": value * int(number)}[
            operator
        ]
    return value


def statement_is_true(example: world.Example, text: str) -> bool | None:
    """Whether a counting, placing or calculating sentence is true of the scene; None: no such."""
    if total := CLAIMED_SUM.search(text):
        return _calculate(total[1].split()) == int(total[2])
    row = next((r for r in ("top", "middle", "bottom") if f"{r} row" in text), None)
    if (count := COUNT.search(text)) and "Comparing" not in text:
        kind = Kind((count[2] or "").strip() or None, None if count[3] == "shape" else count[3])
        return example.scene.count(kind, row) == int(count[1])
    if (place := PLACE.search(text)) and "answer" not in text and "look" not in text:
        thing = example.scene.at(place[0])
        return ("nothing" if thing is None else str(thing)) in text.lower()
    return None


def test_a_step_labelled_right_never_says_anything_false():
    checked = 0
    for example in EXAMPLES:
        for step in example.steps:
            true = statement_is_true(example, step.text)
            if true is not None and step.label:
                assert true, (example.question, step.text)
                checked += 1
    assert checked > 500


def test_a_false_count_place_or_sum_is_labelled_wrong():
    wrong = [
        (example, step)
        for example in EXAMPLES
        for step in example.steps
        if statement_is_true(example, step.text) is False
    ]
    assert len(wrong) > 100
    assert all(step.label == 0 for _, step in wrong)


def test_a_true_sum_of_a_wrong_number_is_labelled_wrong():
    relying = [
        step
        for example in EXAMPLES
        for step in example.steps
        if CLAIMED_SUM.search(step.text)
        and statement_is_true(example, step.text)
        and not step.label
    ]
    assert len(relying) > 50


def test_the_last_step_is_right_exactly_when_its_answer_is():
    for example in EXAMPLES:
        said = example.steps[-1].text.removesuffix(".").split("the answer is ")[-1]
        said = said.removeprefix("The answer is ")
        assert example.steps[-1].label == (said == example.answer), example


def test_a_recovered_mistake_counts_once():
    recovered = [example for example in EXAMPLES if "recovery" in example.errors]
    assert len(recovered) > 20
    for example in recovered:
        assert example.labels.count(0) == 1
        assert example.labels[-1] == 1


def test_flawless_solutions_have_no_wrong_step():
    for seed in range(50):
        example = world.random_example(random.Random(seed), error_rate=0.0)
        assert set(example.labels) == {1}
        assert example.errors == ()


def test_every_kind_of_question_and_error_occurs():
    assert {example.question_type for example in EXAMPLES} == set(QUESTION_TYPES)
    assert {error for e in EXAMPLES for error in e.errors} == {*world.ERRORS, "recovery"}
    arithmetic = [e for e in EXAMPLES if e.question_type == "arithmetic"]
    sums = {sum(bool(CLAIMED_SUM.search(s.text)) for s in e.steps) for e in arithmetic}
    assert {2, 3, 4, 5} <= sums


def test_the_same_seed_gives_the_same_example():
    one, other = (world.random_example(random.Random(3)) for _ in range(2))
    assert (one.question, one.steps) == (other.question, other.steps)
    assert one.image.tobytes() == other.image.tobytes()


def test_notes_name_every_cell_and_check_every_step():
    for example in EXAMPLES[:50]:
        lines = world.notes(example).split("\n")
        assert len(lines) == len(PLACES) + len(example.steps)
        verdicts = [int(line.endswith("holds")) for line in lines[len(PLACES) :]]
        assert verdicts == list(example.labels)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
def test_a_drawn_shape_fills_its_own_cell_only(shape):
    for index, place in enumerate(PLACES):
        cells: list[Thing | None] = [None] * 9
        cells[index] = Thing("red", shape)
        picture = draw(Scene(tuple(cells)), random.Random(index))
        column, row = COLUMNS.index(place.split()[1]), index // 3
        for other in range(9):
            box = (other % 3 * 80, other // 3 * 80, other % 3 * 80 + 80, other // 3 * 80 + 80)
            reds = count_reddish(picture.crop(box))
            assert (reds > 500) == (other == row * 3 + column)


def count_reddish(picture: Image.Image) -> int:
    pixels = picture.get_flattened_data()
    return sum(1 for red, green, _ in pixels if red - green > 60)
