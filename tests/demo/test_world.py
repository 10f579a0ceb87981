"""The demo world's labels, checked against an independent reading of the written steps."""

import random
import re

import pytest
from PIL import Image

from vrprm_reward.demo import world
from vrprm_reward.demo.moves import NUMBERS
from vrprm_reward.demo.questions import QUESTION_TYPES
from vrprm_reward.demo.scene import COLUMNS, KINDS, PLACES, Kind, Scene, Thing, draw

EXAMPLES = [world.random_example(random.Random(seed)) for seed in range(400)]
WORD = r"(red|green|blue|yellow|circles|squares|triangles|stars)(?: shapes)?"
N = rf"({'|'.join(NUMBERS)})"
COUNT = re.compile(rf"(?:number of|Counting the|counting the) {WORD} (?:is|gives) {N}\.")
SUM = re.compile(rf"(?:the {WORD}|{N}): {N} (plus|minus|times) {N} makes {N}\.")
AGAINST = re.compile(rf"ith {WORD} {N} and {WORD} {N}, there are (.*)\.")
PLACE = re.compile(r"(top|middle|bottom) (left|center|right)")
THING = re.compile(r"nothing|(red|green|blue|yellow) (circle|square|triangle|star)")


def count_in(scene: Scene, word: str) -> int:
    colour = word in ("red", "green", "blue", "yellow")
    return scene.count(Kind(colour=word) if colour else Kind(shape=word.removesuffix("s")))


def statement_is_true(example: world.Example, text: str) -> bool | None:
    """Whether what a sentence says is true of the scene, read alone; None: it says nothing."""
    scene = example.scene
    if found := SUM.search(text):
        word, added, a, operator, b, result = found.groups()
        x, y = NUMBERS.index(a), NUMBERS.index(b)
        right = {"plus": x + y, "minus": x - y, "times": x * y}[operator] == NUMBERS.index(result)
        assert added in (None, b)
        return right and (word is None or count_in(scene, word) == y)
    if found := AGAINST.search(text):
        these, a, those, b, result = found.groups()
        first, second = NUMBERS.index(a), NUMBERS.index(b)
        more = None if first == second else (these if first > second else those)
        said = next((w for w in (these, those) if result.startswith(f"more {w}")), None)
        return said == more and (count_in(scene, these), count_in(scene, those)) == (first, second)
    if found := COUNT.search(text):
        return count_in(scene, found[1]) == NUMBERS.index(found[2])
    if "answer" in text or "look at" in text or "look for" in text or "I compare" in text:
        return None
    if "First I count" in text:
        return None
    if place := PLACE.search(text):
        thing = THING.search(text)
        assert thing is not None, text
        return str(scene.at(place[0]) or "nothing") == thing[0]
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
        said = re.search(r"answer is (.*)\.$", example.steps[-1].text)
        assert said is not None
        assert example.steps[-1].label == (said[1] == example.answer), example


def test_a_recovered_mistake_counts_once():
    recovered = [example for example in EXAMPLES if "recovery" in example.errors]
    assert len(recovered) > 20
    for example in recovered:
        assert example.labels.count(0) == 1
        assert example.labels[-1] == 1


def test_claims_are_labelled_as_they_read_and_half_of_them_are_true():
    rng = random.Random(0)
    labels = []
    for example in EXAMPLES[:100]:
        numbers = {kind: example.scene.count(kind) for kind in KINDS}
        for _ in range(5):
            claim, _ = world.random_claim(numbers, rng)
            labels.append(claim.label)
            assert statement_is_true(example, claim.text) == bool(claim.label), claim
    assert 200 < sum(labels) < 300


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


def test_notes_name_every_cell_and_count_every_kind():
    for example in EXAMPLES[:50]:
        *cells, counts = world.notes(example.scene).split("\n")
        assert [PLACE.search(line)[0] for line in cells] == list(PLACES)
        for word, number in re.findall(r"(\w+)s (\w+)", counts):
            assert count_in(example.scene, word) == NUMBERS.index(number)
        assert len(counts.split()) == 16


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
