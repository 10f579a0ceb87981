"""From sampled ids to steps and their tokens, on the real Qwen vocabulary."""

import pytest

from tests.qwen_vocabulary import qwen3_tokenizer
from vrprm_reward.steps import StepSettings
from vrprm_verl.transcript import read_transcript

WHOLE = StepSettings()


@pytest.fixture(scope="module")
def tokenizer():
    return qwen3_tokenizer()


def read(tokenizer, *parts, settings=WHOLE):
    """Parts are (text, 1 for the policy or 0 for a tool)."""
    ids, mask = [], []
    for text, own in parts:
        found = tokenizer.encode(text, add_special_tokens=False)
        ids += found
        mask += [own] * len(found)
    return ids, mask, read_transcript(ids, mask, tokenizer, settings)


def test_a_single_turn_is_split_and_each_step_ends_on_its_last_token(tokenizer):
    ids, _, found = read(tokenizer, ("It is two.\n\nSo four.<|im_end|>", 1))
    assert [step.text for step in found.steps] == ["It is two.", "So four."]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert found.tokens == (tokens.index(".ĊĊ"), len(ids) - 2)  # not the token that ends the turn
    assert found.last == len(ids) - 1
    assert found.policy_text == found.text == "It is two.\n\nSo four."


def test_what_a_tool_wrote_is_context_and_never_a_step(tokenizer):
    _, mask, found = read(
        tokenizer,
        ("I zoom in.<|im_end|>", 1),
        ("\n<|im_start|>user\nThe crop shows\n\nthree dots.<|im_end|>\n<|im_start|>assistant\n", 0),
        ("There are three.\n\nThe answer is 3.<|im_end|>", 1),
    )
    texts = [step.text for step in found.steps]
    assert texts == ["I zoom in.", "There are three.", "The answer is 3."]
    assert "three dots" in found.text
    assert "three dots" not in found.policy_text
    assert all(mask[token] == 1 for token in found.tokens)
    assert found.tokens == tuple(sorted(found.tokens))
    assert [found.text[step.start : step.end] for step in found.steps] == texts


def test_a_step_never_reaches_over_a_tools_answer(tokenizer):
    _, _, found = read(tokenizer, ("one", 1), (" tool ", 0), ("two", 1))
    assert [step.text for step in found.steps] == ["one", "two"]


@pytest.mark.parametrize(("part", "steps"), [("thinking", ["Hm."]), ("answer", ["Two."])])
def test_which_part_is_judged_is_a_setting(tokenizer, part, steps):
    _, _, found = read(tokenizer, ("<think>Hm.</think>Two.", 1), settings=StepSettings(part=part))
    assert [step.text for step in found.steps] == steps


def test_a_response_of_nothing_but_special_tokens_has_no_steps(tokenizer):
    ids, _, found = read(tokenizer, ("<|im_end|>", 1))
    assert (found.steps, found.tokens, found.last) == ((), (), len(ids) - 1)
    _, _, nothing = read(tokenizer)
    assert (nothing.text, nothing.last) == ("", None)


def test_a_response_cut_in_the_middle_of_a_character_still_has_its_tokens(tokenizer):
    ids = tokenizer.encode("one\n\ntwo 𒀀", add_special_tokens=False)[:-1]
    found = read_transcript(ids, [1] * len(ids), tokenizer, WHOLE)
    assert [step.text for step in found.steps] == ["one", "two \ufffd"]
    assert (found.tokens, found.last) == ((0, len(ids) - 2), len(ids) - 1)


def test_a_last_step_that_is_cut_off_leaves_the_last_token_to_the_end(tokenizer):
    ids, _, found = read(tokenizer, ("It is two.\n\nSo four", 1))
    assert found.tokens == (3, len(ids) - 2)
    assert found.last == len(ids) - 1
    # Where a step has no other token, it stays: it must not be taken for the step before.
    ids, _, found = read(tokenizer, ("It is two.\n\nSo", 1))
    assert found.tokens == (3, len(ids) - 1)
    # Nor may it be a token of a tool.
    ids, mask, found = read(tokenizer, ("It is two.", 1), (" tool says", 0), ("So", 1))
    assert found.tokens == (3, len(ids) - 1)
    assert all(mask[token] for token in found.tokens)


def test_three_hundred_steps_of_one_word_have_three_hundred_tokens(tokenizer):
    _, _, found = read(tokenizer, ("\n\n".join(["yes"] * 300), 1))
    assert len(set(found.tokens)) == 300
