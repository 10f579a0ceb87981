"""The demo world's labels, checked against an independent reading of the written steps."""

import random
import re

import pytest
from PIL import Image

from vrprm_reward.demo import drills, world
from vrprm_reward.demo.moves import NUMBERS
from vrprm_reward.demo.questions import QUESTION_TYPES
from vrprm_reward.demo.scene import COLOURS, PLACES, Kind, Scene, Thing, draw

EXAMPLES = [world.random_example(random.Random(seed)) for seed in range(400)]
WORD = r"(reds|greens|blues|yellows|circles|squares|triangles|stars)"
N = rf"({'|'.join(NUMBERS)})"
COUNT = re.compile(rf"(?:number of|Counting the|counting the) {WORD} (?:is|gives) {N}\.")
SUM = re.compile(rf"hen (?:{WORD}|that) {N} (plus|minus|times) (?:{WORD} )?{N} makes {N}\.")
AGAINST = re.compile(rf"gainst {WORD} {N} {WORD} {N} are (more|fewer|equal)\.")
PLACE = re.compile(rf"(?:in the|The) ({'|'.join(PLACES)})\b", re.IGNORECASE)
THING = re.compile(r"nothing|(red|green|blue|yellow) (circle|square|triangle|star)")
HELD = re.compile(rf"({'|'.join(NUMBERS).upper()})(?: is| gives)? {N} (yes|no)")
SAYS_NOTHING = re.compile(r"answer|I look")


def count_in(scene: Scene, word: str) -> int:
    name = word.removesuffix("s")
    return scene.count(Kind(colour=name) if name in COLOURS else Kind(shape=name))


def statement_is_true(example: world.Example, text: str) -> bool | None:
    """Whether what a sentence says is true of the scene, read alone; None: it says nothing."""
    scene = example.scene
    if found := SUM.search(text):
        first, a, operator, second, b, result = found.groups()
        x, y = NUMBERS.index(a), NUMBERS.index(b)
        right = {"plus": x + y, "minus": x - y, "times": x * y}[operator] == NUMBERS.index(result)
        named = [(word, number) for word, number in ((first, x), (second, y)) if word]
        return right and all(count_in(scene, word) == number for word, number in named)
    if found := AGAINST.search(text):
        those, b, these, a, said = found.groups()
        first, second = NUMBERS.index(a), NUMBERS.index(b)
        relation = "more" if first > second else "fewer" if first < second else "equal"
        counted = (count_in(scene, these), count_in(scene, those))
        return said == relation and counted == (first, second)
    if found := COUNT.search(text):
        return count_in(scene, found[1]) == NUMBERS.index(found[2])
    if SAYS_NOTHING.search(text):
        return None
    if place := PLACE.search(text):
        thing = THING.search(text)
        assert thing is not None, text
        return str(scene.at(place[1]) or "nothing") == thing[0]
    return False


def test_a_step_labelled_right_never_says_anything_false():
    checked = 0
    for example in EXAMPLES:
        for step in example.steps:
            true = statement_is_true(example, step.text)
            if true is not None and step.label:
                assert true, (example.question, step.text)
                checked += 1
    assert checked > 500


def test_a_false_statement_is_labelled_wrong():
    wrong = [
        step
        for example in EXAMPLES
        for step in example.steps
        if statement_is_true(example, step.text) is False
    ]
    assert len(wrong) > 200
    assert all(step.label == 0 for step in wrong)


def test_a_true_sum_of_a_wrong_number_is_labelled_wrong():
    relying = [
        step
        for example in EXAMPLES
        for step in example.steps
        if SUM.search(step.text) and statement_is_true(example, step.text) and not step.label
    ]
    assert len(relying) > 30


def test_the_last_step_is_right_exactly_when_its_answer_is():
    for example in EXAMPLES:
        said = re.search(r"answer is ([\w ]+)", example.steps[-1].text)
        assert said is not None
        assert example.steps[-1].label == (said[1] == example.answer), example


def test_a_recovered_mistake_counts_once():
    recovered = [example for example in EXAMPLES if "recovery" in example.errors]
    assert len(recovered) > 20
    for example in recovered:
        assert example.labels.count(0) == 1
        assert example.labels[-1] == 1


def test_a_quiz_is_labelled_as_it_reads_and_about_half_of_it_is_true():
    labels = []
    for seed in range(100):
        quiz = drills.quiz_example(random.Random(seed))
        assert len(quiz.steps) == 9
        for step in quiz.steps:
            labels.append(step.label)
            # "Directly left of it" may be true of a place that is not beside the thing meant.
            true = statement_is_true(quiz, step.text)
            assert true == bool(step.label) or step.text.startswith("Directly"), step.text
    assert 300 < sum(labels) < 600


def test_a_tally_is_counted_as_it_says():
    for seed in range(50):
        example = drills.tally_example(random.Random(seed))
        for step in example.steps:
            true = statement_is_true(example, step.text)
            assert not (step.label and true is False), step.text


def test_a_drill_calculates_with_what_is_counted_and_has_mistakes():
    labels = []
    for seed in range(50):
        drill = drills.drill_example(random.Random(seed))
        assert len(drill.steps) == 9
        for step in drill.steps:
            true = statement_is_true(drill, step.text)
            assert not (step.label and true is False), step.text
        labels += drill.labels
    assert 100 < sum(labels) < 350


def test_what_is_beside_a_wrong_place_is_wrong_and_so_is_the_answer():
    wrong = [
        example
        for seed in range(1500)
        if (example := world.random_example(random.Random(seed))).question_type == "locate"
        and example.errors == ("misread",)
        and "Directly" in example.steps[-2].text
        and not example.labels[-3]
    ]
    assert len(wrong) > 5
    assert all(example.labels[-3:] == (0, 0, 0) for example in wrong)


def test_flawless_solutions_have_no_wrong_step():
    for seed in range(50):
        example = world.random_example(random.Random(seed), error_rate=0.0)
        assert set(example.labels) == {1}
        assert example.errors == ()


def test_every_kind_of_question_and_error_occurs():
    assert {example.question_type for example in EXAMPLES} == set(QUESTION_TYPES)
    assert {error for e in EXAMPLES for error in e.errors} == {*world.ERRORS, "recovery"}
    arithmetic = [e for e in EXAMPLES if e.question_type == "arithmetic" and not e.errors]
    sums = {sum(bool(SUM.search(s.text)) for s in e.steps) for e in arithmetic}
    assert sums == {2, 3, 4, 5}


def test_the_same_seed_gives_the_same_example():
    one, other = (world.random_example(random.Random(3)) for _ in range(2))
    assert (one.question, one.steps) == (other.question, other.steps)
    assert one.image.tobytes() == other.image.tobytes()


def test_notes_name_every_cell_and_then_count_every_kind():
    for example in EXAMPLES[:50]:
        text = world.written(world.notes(example.scene)).lower()
        heading, *cells, counts = text.split("\n")
        assert heading == "cells:"
        for place, cell in zip(PLACES, cells, strict=True):
            assert cell == f" {place} {example.scene.at(place) or 'nothing'}"
        for word, number in re.findall(r"(\w+) (\w+)", counts):
            assert count_in(example.scene, word) == NUMBERS.index(number)
        assert len(counts.split()) == 16


def test_checks_repeat_the_steps_and_tick_every_claim_off_against_the_truth_before_it():
    for example in EXAMPLES:
        lines = world.written(world.checks(example.steps, 1)).removeprefix("\n").split("\n")
        for number, (step, line) in enumerate(zip(example.steps, lines, strict=True), 1):
            begin, said, end = re.fullmatch(r"(\d): (.*) (\d (?:right|wrong))", line).groups()
            assert begin == str(number)
            assert end == f"{number} {('wrong', 'right')[step.label]}"
            assert re.sub(r" ([A-Z]{2,}|yes|no)\b", "", said) == step.text
            assert step.label == (re.search(r"\bno\b", said) is None)
            for truth, claim, tick in HELD.findall(said):
                assert (truth.lower() == claim) == (tick == "yes"), said


def test_no_solution_has_so_many_steps_that_their_numbers_have_two_digits():
    assert max(len(example.steps) for example in EXAMPLES) <= 9


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
def test_a_drawn_shape_fills_its_own_cell_only(shape):
    for index in range(len(PLACES)):
        cells: list[Thing | None] = [None] * 9
        cells[index] = Thing("red", shape)
        picture = draw(Scene(tuple(cells)), random.Random(index))
        for other in range(9):
            box = (other % 3 * 80, other // 3 * 80, other % 3 * 80 + 80, other // 3 * 80 + 80)
            reds = count_reddish(picture.crop(box))
            assert (reds > 500) == (other == index)


def count_reddish(picture: Image.Image) -> int:
    pixels = picture.get_flattened_data()
    return sum(1 for red, green, _ in pixels if red - green > 60)
