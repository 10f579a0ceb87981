"""Outcomes: what counts as right, and that checking can hang, die or raise without harm."""

import asyncio
import pickle
import threading

import pytest

from tests.rewards import outcome_functions
from vrprm_reward.errors import MissingExtraError
from vrprm_reward.rewards.answers import final_answer, same_text
from vrprm_reward.rewards.isolated import IsolatedFunction
from vrprm_reward.rewards.outcome import load_outcome

FUNCTIONS = "tests.rewards.outcome_functions"


@pytest.fixture(scope="module")
def math_check():
    found = load_outcome("math", timeout=20, workers=1)
    yield lambda response, reference: asyncio.run(found.acheck(response, reference))
    found.close()


@pytest.fixture
def isolated():
    made = []

    def make(name, **settings):
        made.append(IsolatedFunction(f"{FUNCTIONS}:{name}", workers=1, **settings))
        return made[-1]

    yield make
    for function in made:
        function.close()


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("So \\boxed{\\frac{1}{2}} it is.", "\\frac{1}{2}"),
        ("First \\boxed{1}, then \\boxed{2}", "2"),
        ("<think>\\boxed{7}</think>The answer is 8.", "8."),
        ("<answer> red </answer>", "red"),
        ("<think>hm</think><answer>\\boxed{red}", "red"),
        ("<answer> </answer>", None),
        ("Final answer: 12\nBye", "12"),
        ("**Answer**: 12", "12"),
        ("The answer is 11. No, the answer is: 12.", "12."),
        ("The answer is 12.\nAnswer:\n", "12."),
        ("正确答案是：B。", "B。"),
        ("The answer isn't 12", None),
        ("The answer is island", "island"),
        ("\\boxed{never closed", None),
        ("\\boxed{1} \\boxed{{2}", "1"),
        ("\\boxed{a\\boxed{b}c}", "b"),
        ("} \\boxed{1}}", "1"),
        pytest.param("\\boxed{1}" + "\\boxed{" * 200_000, "1", id="thousands of open boxes"),
        pytest.param("\n# " * 100_000, None, id="thousands of headings"),
        pytest.param("#" * 200_000 + " *" * 100_000, None, id="a long heading"),
        pytest.param("The answer " + "must be " * 100_000, None, id="an answer that never comes"),
        ("Every option is a number", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_the_final_answer_is_the_boxed_one_the_marked_one_or_the_stated_one(response, answer):
    assert final_answer(response) == answer


def test_texts_are_compared_without_their_dress():
    assert same_text("\\text{Red}.", "red")
    assert same_text("$ 12 $", "12")
    assert not same_text("12", "21")
    assert same_text("**(B).**", "B")
    assert same_text("（B）。", "(b)")
    assert not same_text("(1, 2)", "[1, 2]")
    assert not same_text("[x]", "x")


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    [
        ("The answer is \\boxed{48}.", "48", 1.0),
        ("\\boxed{\\frac{3}{\\sqrt{3}}}", "\\sqrt{3}", 1.0),
        ("<answer>\\sqrt{3}</answer>", "$\\sqrt{3}$", 1.0),
        ("<think>\\boxed{48}</think>\\boxed{47}", "48", 0.0),
        ("so 0.5", "\\frac{1}{2}", 1.0),
        ("The answer is three.", "three", 1.0),
        ("The answer is B.", "B", 1.0),
        ("The answer is C.", "B", 0.0),
        ("no idea", "3", 0.0),
        ("", "3", 0.0),
    ],
)
def test_math_verify_decides_what_is_equal(math_check, response, reference, value):
    assert math_check(response, reference).value == value


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    [
        ("The answer is (B).", "B", 1.0),
        ("The answer is B) 12 cm.", "B", 1.0),
        ("<answer>B. 12 cm</answer>", "B", 1.0),
        ("Answer: (B) 12 cm", "B", 1.0),
        ("\\boxed{B) 12}", "B", 1.0),
        ("\\boxed{\\textbf{(B)}\\ 12}", "B", 1.0),
        ("The answer is option B.", "B", 1.0),
        ("**Answer**: B", "B", 1.0),
        ("答案：B", "B", 1.0),
        ("The answer is B.", "(B)", 1.0),
        ("The answer is B.", "(B) 12 cm", 1.0),
        ("so it is $B$", "B", 1.0),
        ("The answer is $B$ because of this", "B", 1.0),
        ("The answer is C) B-shaped", "B", 0.0),
        ("The answer is B-shaped", "B", 0.0),
        ("The answer is (C).", "B", 0.0),
        ("The answer is (C).", "(B) 12 cm", 0.0),
        ("答案：C", "B", 0.0),
        ("The answer is B. No, the answer is C.", "B", 0.0),
        ("The answer is B. No, the answer is C.", "C", 1.0),
        ("The answer is A or B", "A", 0.0),
        ("The answer is $A$ or $B$", "A", 0.0),
        ("The answer is A, B", "A", 0.0),
        ("The answer is not B", "B", 0.0),
        ("The answer isn't B", "B", 0.0),
        ("The answer is A cat", "A", 0.0),
        ("The answer is a triangle", "A", 0.0),
        ("I think 5", "I", 0.0),
        ("The answer is I think 5", "I", 0.0),
    ],
)
def test_a_multiple_choice_answer_is_right_by_its_leading_letter(
    math_check, response, reference, value
):
    assert math_check(response, reference).value == value


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("\\boxed{act}", "cat", 0.0),
        ("\\boxed{on}", "no", 0.0),
        ("\\boxed{felt}", "left", 0.0),
        ("\\boxed{\\text{Left}}", "left", 1.0),
        ("\\boxed{act a}", "a cat", 0.0),
        ("The answer is No.", "no", 1.0),
        ("\\boxed{ba}", "ab", 0.0),
        ("\\boxed{ab}", "ab", 1.0),
        ("\\boxed{b \\cdot a}", "ab", 1.0),
        ("\\boxed{b*a}", "ab", 1.0),
        ("The answer is $ba$", "ab", 1.0),
        ("\\boxed{ba}", "$ab$", 1.0),
        ("\\boxed{yx + 1}", "1 + xy", 1.0),
    ],
)
def test_letters_are_multiplied_in_mathematics_and_not_in_words(
    math_check, answer, reference, value
):
    assert math_check(answer, reference).value == value


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("\\boxed{50\\%}", "0.5", 1.0),
        ("\\boxed{0.5}", "50\\%", 1.0),
        ("\\boxed{50\\%}", "\\frac{1}{2}", 1.0),
        ("\\boxed{50\\%}", "50", 1.0),
        ("\\boxed{50}", "50\\%", 1.0),
        ("\\boxed{50\\%}", "50%", 1.0),
        ("The answer is $12.5\\%$.", "0.125", 1.0),
        ("\\boxed{50\\text{ percent}}", "0.5", 1.0),
        ("so it is $12.5\\%$", "12.5\\%", 1.0),
        ("\\boxed{50}", "0.5", 0.0),
        ("\\boxed{50\\%}", "0.05", 0.0),
        ("\\boxed{0.5\\%}", "50\\%", 0.0),
        ("\\boxed{0.5\\%}", "0.5", 0.0),
        ("\\boxed{0.25\\%}", "0.25", 0.0),
        ("\\boxed{0.25}", "0.25\\%", 0.0),
        ("\\boxed{5000\\%}", "50\\%", 0.0),
        ("\\boxed{12.50\\%}", "12.5", 1.0),
        ("\\boxed{12.5}", "12.5\\%", 1.0),
        ("\\boxed{12.50\\%}", "12.5%", 1.0),
        ("\\boxed{40\\%}", "0.5", 0.0),
    ],
)
def test_a_percentage_equals_its_hundredth_part_and_its_number_without_the_sign(
    math_check, answer, reference, value
):
    assert math_check(answer, reference).value == value


def test_without_a_reference_the_outcome_is_unknown_and_not_wrong(math_check):
    for check in (math_check, lambda *a: asyncio.run(load_outcome("exact").acheck(*a))):
        found = check("\\boxed{1}", None)
        assert (found.value, found.reason) == (None, "no_reference")
        assert "combination 'process'" in found.detail
        # An empty box would equal a blank reference.
        for blank in ("", " \n"):
            assert check("\\boxed{}", blank).reason == check("5", blank).reason == "no_reference"
    assert math_check("\\boxed{1}", "$$").reason == "reference_unreadable"
    assert asyncio.run(load_outcome("none").acheck("1", "1")).value is None


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("B", "B"),
        ("B) 12 cm", "B"),
        ("Three sides are equal.\n\n**(B)**\n", "B"),
        ("Yes", "yes"),
        ("It purrs.\n\nCat.", "cat"),
        ("The correct option is B.", "B"),
        ("Therefore, the correct choice is (B).", "B"),
        ("Therefore the answer must be B.", "B"),
        ("The answer is therefore B", "B"),
        ("So the answer is, then, 3.", "3"),
        ("### Final Answer\n\n**B**", "B"),
        ("**Final answer**\nB", "B"),
    ],
)
def test_answers_are_found_in_the_forms_that_models_write(math_check, response, reference):
    assert math_check(response, reference).value == 1.0
    other = "C" if reference == "B" else "dog"
    assert math_check(response, other).value == 0.0


def test_a_response_that_states_no_answer_is_wrong_with_that_reason(math_check):
    for check in (math_check, lambda *a: asyncio.run(load_outcome("exact").acheck(*a))):
        found = check("Two of them are red, I think", "3")
        assert (found.value, found.reason) == (0.0, "no_answer_stated")
        assert "boxed" in found.detail
        found = check("The answer is 2.", "3")
        assert (found.value, found.reason) == (0.0, None)


@pytest.mark.parametrize(
    "response",
    [
        "Each option is a number. So A or B",
        "A\nor B",
        "The first choice is A good one\nB, A",
        "A B",
    ],
)
def test_hedging_is_no_answer(math_check, response):
    assert math_check(response, "A").value == 0.0


def test_exact_wants_the_same_text():
    check = load_outcome("exact")
    assert asyncio.run(check.acheck("The answer is Red.", "red")).right
    assert asyncio.run(check.acheck("It is what I see.\n\nRed.", "red")).right
    assert not asyncio.run(check.acheck("It is red", "red")).right
    assert asyncio.run(check.acheck("The answer is (B).", "B")).right
    assert not asyncio.run(check.acheck("The answer is (B) 12 cm.", "B")).right
    assert not asyncio.run(check.acheck("The answer is (C).", "B")).right


def test_a_check_that_hangs_is_ended_and_the_next_one_works(isolated):
    function = isolated("endless", timeout=1.0)
    assert function("go on", "1").reason == "timeout"
    assert function("stop", "1").value == 1.0


def test_a_check_that_dies_is_started_again(isolated):
    function = isolated("dying", timeout=20)
    assert function("die", "1").reason == "died"
    assert function("live", "1").value == 1.0


def test_what_a_function_raises_or_returns_wrongly_is_said(isolated):
    raised = isolated("raising")("r", "the reference")
    assert raised.value is None
    assert raised.detail == "KeyError: 'the reference'"
    assert isolated("too_much")("r", "1").detail == "7 is not in [0, 1]"


def test_what_a_function_prints_does_not_disturb_the_answers(isolated, capfd):
    function = isolated("noisy")
    assert [function("r", "1").value for _ in range(2)] == [1.0, 1.0]
    assert "I print" in capfd.readouterr().err


def test_a_function_that_cannot_be_imported_is_named(isolated):
    with pytest.raises(MissingExtraError, match=r"missing_function' is not usable.*no function"):
        isolated("missing_function")("r", "1")


def test_isolated_functions_pickle_and_run_side_by_side(isolated):
    copy = pickle.loads(pickle.dumps(isolated("half")))
    try:
        assert copy("r", "1").value == 0.5
    finally:
        copy.close()


def test_checks_that_hang_or_die_count_as_wrong_and_say_so():
    async def check():
        outcome = load_outcome(f"{FUNCTIONS}:endless", timeout=0.5, workers=1)
        try:
            return await outcome.acheck("go on", "1")
        finally:
            outcome.close()

    found = asyncio.run(check())
    assert (found.value, found.reason) == (0.0, "timeout")


def test_the_users_own_function_is_called_in_a_thread_or_awaited():
    def threaded(response, reference):
        assert threading.current_thread().name == "vrprm-outcome"
        return response == reference

    async def awaited(response, reference):
        await asyncio.sleep(0)
        return 0.25

    assert asyncio.run(load_outcome(threaded).acheck("1", "1")).value == 1.0
    assert asyncio.run(load_outcome(awaited).acheck("1", "1")).value == 0.25
    assert asyncio.run(load_outcome(outcome_functions.raising).acheck("1", "1")).reason == "raised"
    assert asyncio.run(load_outcome(outcome_functions.too_much).acheck("1", "1")).value is None


def test_a_users_function_that_hangs_holds_up_nobody():
    release = threading.Event()

    def stuck(response, reference):
        release.wait()
        return 1.0

    async def check():
        outcome = load_outcome(stuck, timeout=0.2)
        return await asyncio.gather(*(outcome.acheck("r", "1") for _ in range(20)))

    found = asyncio.run(check())  # twenty are called and not one has returned
    release.set()
    assert {(each.value, each.reason) for each in found} == {(0.0, "timeout")}


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'maths'; choose one of math, exact, none"):
        load_outcome("maths")
    with pytest.raises(ValueError, match="timeout = 0"):
        IsolatedFunction("math", timeout=0)
