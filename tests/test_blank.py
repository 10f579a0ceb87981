"""Text that shows nothing, and what becomes of it when a response is divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrprm_reward.blank import is_blank
from vrprm_reward.steps import StepSettings, locate_steps, split_steps, split_with

INVISIBLE = "\u200b\u2060\ufeff\u2800\u3164\u115f\u1160\uffa0\u00ad\u200e \t\r\n\u3000\u2028"


@given(st.text(INVISIBLE))
def test_invisible_signs_and_white_space_are_blank(text):
    assert is_blank(text)


@given(st.text(INVISIBLE), st.sampled_from("a1.<\\中´¨∎😀é"), st.text(INVISIBLE))
def test_one_sign_that_shows_something_is_not(before, sign, after):
    assert not is_blank(before + sign + after)


@pytest.mark.parametrize("text", ["é", "e\u0301", "\u0301e", "한"])
def test_letters_with_marks_are_not_blank(text):
    assert not is_blank(text)


@pytest.mark.parametrize("rule", ["vrprm", "protected", "numbered"])
def test_what_shows_nothing_is_no_step_and_moves_no_other(rule):
    settings = StepSettings(rule=rule)
    response = "\u2060\u3164\n\n1. \ufeffa\u200b\n\n2. b\n\n\u2800"
    found = split_steps(response, settings)
    assert [(s.text, s.start) for s in found][:1] == [("1. \ufeffa\u200b", 4)]
    assert len(found) == 2
    assert split_steps("\u200b\n\n\u2060\n\ufeff", settings) == ()


def test_what_a_splitter_returns_without_anything_to_see_is_no_step():
    response = "a|\u200b|b"
    expected = locate_steps(response, ["a", "b"])
    assert split_with(response, lambda text: text.split("|")) == expected
    assert split_with(response, lambda text: [(0, 1), (2, 3), (4, 5)]) == expected
    assert split_with("\u200b", lambda text: pytest.fail("nothing to split")) == ()
