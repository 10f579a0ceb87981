"""Thinking out of generated text, and a probability out of two log-probabilities."""

import math

import pytest

from vrprm_reward import load_profile
from vrprm_reward.engines.engine import Generation, Judgement
from vrprm_reward.errors import NonFiniteLogitsError
from vrprm_reward.scoring.parse import parse_thinking, probability

RULES = load_profile("two_stage").think


@pytest.mark.parametrize(
    ("text", "finish", "thinking", "flags"),
    [
        ("<think>a b</think>", "stop", "a b", ()),
        ("<think>\na\n</think> and more", "stop", "a", ()),
        ("x <think>a</think><think>b</think>", "stop", "a", ()),
        ("a</think> rest", "stop", "a", ()),
        ("\na\n</think>\n\nrest", "stop", "a", ()),
        ("</think>\n1", "stop", "", ("thinking_empty",)),
        ("a</think>b</think>", "stop", "a", ()),
        ("a and then", "length", "a and then", ("thinking_truncated",)),
        ("plain words ", "stop", "plain words", ("thinking_unmarked",)),
        ("<think>never ends", "length", "never ends", ("thinking_truncated",)),
        ("<think></think>", "stop", "", ("thinking_empty",)),
        ("", "stop", "", ("thinking_unmarked", "thinking_empty")),
    ],
)
def test_thinking_is_what_stands_between_the_delimiters(text, finish, thinking, flags):
    thought = parse_thinking(Generation(text, finish, 1, 1), RULES)
    assert (thought.text, thought.flags) == (thinking, flags)


@pytest.mark.parametrize(
    ("text", "finish", "thinking", "flags"),
    [
        ("<think> a </think> b", "stop", "a", ()),
        ("a</think>", "stop", "a", ()),
        ("plain words", "stop", "", ("thinking_unmarked", "thinking_empty")),
        ("<think>never ends", "length", "", ("thinking_truncated", "thinking_empty")),
    ],
)
def test_text_without_an_end_of_thinking_may_be_dropped(text, finish, thinking, flags):
    rules = RULES.model_copy(update={"unmarked": "drop"})
    thought = parse_thinking(Generation(text, finish, 1, 1), rules)
    assert (thought.text, thought.flags) == (thinking, flags)


@pytest.mark.parametrize(
    ("l0", "l1", "p"),
    [
        (math.log(0.25), math.log(0.75), 0.75),
        (math.log(0.001), math.log(0.003), 0.75),
        (-1000.0, 0.0, 1.0),
        (0.0, -1000.0, 0.0),
        (-math.inf, -3.0, 1.0),
        (-3.0, -math.inf, 0.0),
        (-5000.0, -5000.0, 0.5),
    ],
)
def test_raw_and_renormalised_log_probabilities_give_the_same_probability(l0, l1, p):
    assert probability(Judgement(l0, l1, 0)) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(
    ("l0", "l1"), [(math.nan, 0.0), (0.0, math.nan), (-math.inf, -math.inf), (math.inf, 0.0)]
)
def test_a_judgement_that_is_no_number_is_an_error(l0, l1):
    with pytest.raises(NonFiniteLogitsError, match="checkpoint"):
        probability(Judgement(l0, l1, 0))
