"""Step ends on tokens: by hand, and as properties on the real Qwen vocabulary."""

from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.qwen_vocabulary import qwen3_tokenizer
from vrprm_reward.errors import AlignmentError
from vrprm_reward.process_reward import DEMO_FOLDER
from vrprm_reward.rewards.align import last_tokens, place, token_bytes
from vrprm_reward.steps import split_steps
from vrprm_reward.types import Step


def spans(text, *pieces):
    steps, at = [], 0
    for piece in pieces:
        at = text.index(piece, at)
        steps.append(Step(text=piece, start=at, end=at + len(piece)))
        at += len(piece)
    return steps


@pytest.fixture(scope="module")
def tokenizer():
    return qwen3_tokenizer()


def ends_by_decoding(ids, tokenizer, text, steps):
    """The first token whose decoded prefix holds the step whole: slow, plain, ASCII only."""
    found = []
    for step in steps:
        lengths = [len(tokenizer.decode(ids[: k + 1])) for k in range(len(ids))]
        found.append(next(k for k, n in enumerate(lengths) if n >= step.end))
    return found


def test_a_boundary_inside_a_merged_token_belongs_to_the_step_before_it(tokenizer):
    text = "It is two.\n\nSo four."
    ids = tokenizer.encode(text, add_special_tokens=False)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert ".ĊĊ" in tokens
    steps = spans(text, "It is two.", "So four.")
    assert last_tokens(ids, tokenizer, text, steps) == [tokens.index(".ĊĊ"), len(ids) - 1]


def test_a_character_split_over_tokens_ends_with_its_last_byte(tokenizer):
    text = "a 𒀀\n\nb"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 6  # "𒀀" takes three tokens
    first, second = last_tokens(ids, tokenizer, text, spans(text, "a 𒀀", "b"))
    assert tokenizer.decode(ids[: first + 1]).startswith("a 𒀀")
    assert not tokenizer.decode(ids[:first]).startswith("a 𒀀")
    assert second == len(ids) - 1


def test_special_tokens_hold_no_text_when_they_are_skipped(tokenizer):
    text = "one\n\ntwo"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = [end, *tokenizer.encode(text, add_special_tokens=False), end]
    skipped = last_tokens(ids, tokenizer, text, spans(text, "one", "two"))
    assert skipped[-1] == len(ids) - 2
    kept_text = tokenizer.decode(ids)
    kept = last_tokens(
        ids, tokenizer, kept_text, spans(kept_text, "one", "two"), skip_special_tokens=False
    )
    assert kept == skipped


def test_a_response_cut_in_the_middle_of_a_character_still_aligns(tokenizer):
    ids = tokenizer.encode("one\n\ntwo 𒀀", add_special_tokens=False)[:-1]
    text = tokenizer.decode(ids)
    assert text.endswith("\ufffd")
    steps = spans(text, "one", text[5:])
    assert last_tokens(ids, tokenizer, text, steps)[-1] == len(ids) - 1


def test_a_replacement_character_that_the_policy_wrote_is_three_bytes(tokenizer):
    text = "one \ufffd\n\ntwo"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert last_tokens(ids, tokenizer, text, spans(text, "one \ufffd", "two"))[-1] == len(ids) - 1


def test_white_space_stripped_from_the_text_is_allowed_for(tokenizer):
    ids = tokenizer.encode("\n\n one\n\ntwo \n", add_special_tokens=False)
    text = tokenizer.decode(ids).strip()
    first, second = last_tokens(ids, tokenizer, text, spans(text, "one", "two"))
    assert tokenizer.decode(ids[: first + 1]).strip() == "one"
    assert tokenizer.decode(ids[: second + 1]).strip() == text


def test_a_masked_token_never_gets_a_reward(tokenizer):
    text = "one two three"
    ids = tokenizer.encode(text, add_special_tokens=False)
    steps = spans(text, "one two three")
    assert last_tokens(ids, tokenizer, text, steps, mask=[1, 1, 0]) == [1]
    with pytest.raises(AlignmentError, match="step 0 has no token that is not masked"):
        last_tokens(ids, tokenizer, text, steps, mask=[0, 0, 0])
    second = spans(text, "one", " two three")
    with pytest.raises(AlignmentError, match="step 1 has no token"):
        last_tokens(ids, tokenizer, text, second, mask=[1, 0, 0])


def test_text_that_these_tokens_do_not_spell_is_refused(tokenizer):
    ids = tokenizer.encode("The answer is 4.", add_special_tokens=False)
    with pytest.raises(AlignmentError, match=r"'The answer is 4\.'.*'The answer is 5\.'"):
        last_tokens(ids, tokenizer, "The answer is 5.", spans("The answer is 5.", "The"))


def test_a_tokenizer_of_another_kind_is_refused(tokenizer):
    class Metaspace:
        all_special_ids = ()
        added_tokens_decoder: ClassVar = {}

        def convert_ids_to_tokens(self, ids):
            return ["▁one" for _ in ids]

    with pytest.raises(AlignmentError, match="no byte-level BPE token"):
        last_tokens([5], Metaspace(), "one", spans("one", "one"))


texts = st.lists(
    st.one_of(
        st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=12),
        st.sampled_from(
            [
                "So x = 2.",
                "因此，答案是四。",
                "👩‍👩‍👧 laughs",
                "$\\frac{1}{2}$",
                "```py\na\n```",
                "é" * 3,
            ]
        ),
    ),
    min_size=1,
    max_size=8,
).map("\n\n".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts, cut=st.integers(0, 6))
def test_every_step_gets_one_token_in_order_and_no_reward_is_lost(tokenizer, text, cut):
    ids = tokenizer.encode(text, add_special_tokens=False)
    ids = ids[: len(ids) - cut] if cut < len(ids) else ids
    text = tokenizer.decode(ids)
    steps = split_steps(text)
    tokens = last_tokens(ids, tokenizer, text, steps)
    assert len(tokens) == len(steps)
    assert tokens == sorted(tokens)
    assert all(0 <= token < len(ids) for token in tokens)
    rewards = [float(1 + 2 * index) for index in range(len(steps))]
    placed = place(rewards, tokens, len(ids))
    assert placed.sum().item() == sum(rewards)
    if text.isascii():
        assert tokens == ends_by_decoding(ids, tokenizer, text, steps)


def test_tokens_are_looked_up_once_and_nothing_is_decoded(tokenizer):
    calls = []

    class Counting:
        all_special_ids = tokenizer.all_special_ids
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def convert_ids_to_tokens(self, ids):
            calls.append(len(ids))
            return tokenizer.convert_ids_to_tokens(ids)

    text = "\n\n".join(["So 12 plus 30 makes 42."] * 300)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(last_tokens(ids, Counting(), text, split_steps(text))) == 300
    assert calls == [len(ids)]


def test_step_rewards_on_one_token_add_up_and_zeros_can_be_made_visible():
    assert place([1.0, 2.0, 0.5], [1, 1, 3], 4).tolist() == [0, 3.0, 0, 0.5]
    placed = place([0.0, 1.0], [0, 2], 4, visible_zero=1e-30)
    assert placed.dtype == torch.float32
    assert placed.nonzero().flatten().tolist() == [0, 2]
    assert placed.sum().item() == 1.0
    assert place([], [], 2).tolist() == [0, 0]


def test_an_id_without_a_token_is_skipped_as_decoding_skips_it(tokenizer):
    ids = tokenizer("One. Two.").input_ids
    ids.insert(2, 151_900)  # models have rows for it
    assert tokenizer.convert_ids_to_tokens(151_900) is None
    text = tokenizer.decode(ids)
    assert b"".join(token_bytes(ids, tokenizer, True)).decode() == text == "One. Two."


def test_a_reserved_token_without_a_role_is_skipped_as_decoding_skips_it():
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    ids = tokenizer("reds are<|object_ref_start|> two").input_ids
    assert tokenizer.convert_tokens_to_ids("<|object_ref_start|>") in ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert b"".join(token_bytes(ids, tokenizer, True)).decode() == text
