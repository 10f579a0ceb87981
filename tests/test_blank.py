import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrprm_reward.blank import is_blank

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
