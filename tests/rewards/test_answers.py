"""Answers as text: which letter an answer chooses, and when text decides whether two are equal."""

import time

import pytest

from vrprm_reward.rewards.answers import final_answer, percentage, text_verdict


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "B.",
        "(B).",
        "**(B)**.",
        "[B]",
        "（B）",
        "B。",
        "B) 12 cm.",
        "B. 12 cm",
        "B: 12 cm",
        "B, since 3 > 2",
        "B; 12",
        "(B) 12 cm",
        "（B）12 cm",
        "(B) A circle",
        "(B), A circle",
        "(B), because (A) and (C) are not prime",
        "B, I think",
        "B. Both A and C",
        "\\text{(B) } 12",
        "\\textbf{(B)}\\ 12",
        "$B$",
        "$\\mathrm{B}$: 12",
        "option B",
        "the option (B)",
        "Choice B: 12",
        "选项B",
        "B\n12 cm",
    ],
)
def test_an_answer_chooses_the_option_whose_letter_it_begins_with(answer):
    for reference in ("B", "(B)", "B.", "\\text{B}"):
        assert text_verdict(answer, reference) is True
        assert text_verdict(reference, answer) is True
    for reference in ("A", "C", "(C)"):
        assert text_verdict(answer, reference) is False
        assert text_verdict(reference, answer) is False


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("A cat", "A"),
        ("a triangle", "A"),
        ("I think 5", "I"),
        ("B-shaped", "B"),
        ("B's", "B"),
        ("B 12", "B"),
        ("B^2", "B"),
        ("(B)^2", "B"),
        ("B.red", "B"),
        ("BC", "B"),
        ("b) 12", "B"),
        ("not B", "B"),
        ("A or B", "A"),
        ("A, or B", "A"),
        ("A, B", "A"),
        ("A/B", "A"),
        ("(A) and (B)", "A"),
        ("(A)(B)", "A"),
        ("A\nB", "A"),
        ("(A) 12 or (B) 14", "A"),
        ("A. 12 or B. 14", "A"),
        ("option A or option B", "A"),
        ("A、B", "A"),
        ("A或B", "A"),
        ("K) 12", "K"),
        ("12", "B"),
        ("B) 12", "12"),
        ("B) 12", "B. 12 cm"),
    ],
)
def test_what_chooses_no_option_or_two_is_not_taken_for_one(answer, reference):
    assert text_verdict(answer, reference) is None


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("act", "cat", False),
        ("on", "no", False),
        ("Felt.", "left", False),
        ("Left.", "left", True),
        ("\\text{act}", "cat", False),
        ("**act**", "cat", False),
        ("act a", "a cat", False),
        ("红色", "色红", False),
        ("ba", "ab", False),
        ("b a", "ab", None),
        ("b*a", "ab", None),
        ("$ba$", "ab", None),
        ("\\(ba\\)", "ab", None),
        ("2ba", "2ab", None),
        ("\\pi", "pi", None),
        ("x", "y", None),
    ],
)
def test_plain_words_are_equal_only_as_texts(answer, reference, verdict):
    assert text_verdict(answer, reference) is verdict
    assert text_verdict(reference, answer) is verdict


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("50\\%", "50"),
        ("$12.5 \\%$.", "12.5"),
        ("-1,000%", "-1,000"),
        ("+5\\text{ percent}", "5"),
        ("50", None),
        ("50% or 60%", None),
        ("x = 50\\%", None),
        ("\\frac{1}{2}\\%", None),
    ],
)
def test_an_answer_of_one_number_in_percent_is_known(answer, found):
    assert percentage(answer) == found


@pytest.mark.parametrize(
    "part", ["\n", " ", "B\n", "(B) or ", "or ", "option ", "9", "a ", "\\text{"]
)
def test_answers_of_any_length_are_compared_in_linear_time(part):
    began = time.monotonic()
    for start in ("B", "B)", "option", "9"):
        text_verdict(start + part * 30_000 + "!", "B")
        percentage(start + part * 30_000 + "!")
    final_answer(f"answer {part}" * 30_000)
    assert time.monotonic() - began < 5
