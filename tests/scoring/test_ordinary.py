"""Ordinary text reaches the prompts byte for byte, and so does all that the four rules leave."""

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpora import IMAGES, Desk, rollout_of
from tests.corpora.hostile import HOSTILE, MARKERS, RESERVED
from tests.corpora.ordinary import ORDINARY
from tests.qwen_vocabulary import PLAIN_TOKENS, SPECIAL_TOKENS
from tests.scoring.doubles import shown, with_bare_steps
from vrprm_reward import Problem, Rollout, load_profile
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.render import Case
from vrprm_reward.scoring.untrusted import Neutraliser
from vrprm_reward.steps import split_steps

TOKENS = frozenset(SPECIAL_TOKENS + PLAIN_TOKENS)
DELIMITERS = ("<think>", "</think>", "<answer>", "</answer>", "<step split>")
PROFILES = {
    **{name: load_profile(name) for name in FRAMES},
    "kept": load_profile("multi_turn").model_copy(update={"placeholder": "keep"}),
    "canonical": load_profile("answer_block").model_copy(update={"placeholder": "canonical"}),
    "score_json, bare steps": with_bare_steps("score_json"),
    "boxed_continuation, bare steps": with_bare_steps("boxed_continuation"),
}
SAFE = {name: Neutraliser(profile, TOKENS) for name, profile in PROFILES.items()}


@pytest.fixture(scope="module")
def desks():
    made = {name: Desk(profile, TOKENS) for name, profile in PROFILES.items()}
    yield made
    for desk in made.values():
        desk.close()


def test_there_are_at_least_a_hundred_ordinary_solutions():
    assert len(set(ORDINARY)) == len(ORDINARY) >= 100


@pytest.mark.parametrize("name", PROFILES)
def test_an_ordinary_solution_is_not_touched(name):
    safe = SAFE[name]
    for text in ORDINARY:
        assert safe.text(text) == text
        generated = f"<think>{text}</think>\n{text}" if PROFILES[name].think else text
        assert safe.generated(generated) == generated
        for index in range(4):
            assert safe.step(index, text) == text
        for index, step in enumerate(split_steps(text)):
            assert safe.step(index, step.text) == step.text


@pytest.mark.parametrize("name", PROFILES)
def test_an_ordinary_solution_stands_in_every_prompt_as_it_was_written(name, desks):
    profile, desk = PROFILES[name], desks[name]
    judge, first = FRAMES[profile.frame].judge, profile.steps.first_number
    for text in ORDINARY:
        problem = Problem(question=text, images=IMAGES)
        steps = split_steps(text)
        score, prompts = desk.ask(
            Rollout(problem=problem, response=text), thinking=text, steps=len(steps)
        )
        assert score.scored
        assert score.steps == steps
        assert score.thinking == (text if profile.think else None)
        images = next(prompt.images for prompt in prompts if prompt.images)
        case = Case(text, tuple(step.text for step in steps), images)
        generated = f"<think>{text}</think>\n{profile.sections.analysis}\n"
        prefixes = []
        for number in range(first, first + len(steps)):
            prefixes.append(f"{generated}Step {number}: holds \\boxed{{")
            generated = f"{prefixes[-1]}1}}\n"
        thought = Thought(text, prefixes=tuple(prefixes))
        wanted = [think_prompt(profile, case)] if profile.think else []
        wanted += [judge(profile, case, thought, (1,) * index) for index in range(len(steps))]
        assert [shown(prompt) for prompt in prompts] == [shown(prompt) for prompt in wanted]


def test_a_reference_answer_is_shown_as_it_was_written():
    profile = PROFILES["two_stage"].model_copy(update={"show_reference": True})
    desk = Desk(profile, TOKENS)
    for text in ORDINARY:
        _, prompts = desk.ask(rollout_of("What?", ["So."], reference=text))
        for prompt in prompts:
            assert f"\n[Reference Answer]\n{text}\n[Candidate Solution]\n" in shown(prompt)
    desk.close()


# What the rules cover, written apart from the package: from the text as it is rendered.


def squeezed(line):
    letters = unicodedata.normalize("NFKD", line)
    kept = [
        c
        for c in letters
        if not re.match(r"[CMZ]", unicodedata.category(c)) and c not in "\u115f\u1160\u2800"
    ]
    return "".join(str(unicodedata.decimal(c, c)) for c in kept).casefold()


def forged(lines, profile):
    markers = {squeezed(marker) for marker in profile.sections.markers}
    verdict = re.compile(r"step\d+:(0|1|\\boxed\{0\}|\\boxed\{1\})")
    return any(squeezed(x) in markers or verdict.fullmatch(squeezed(x)) for x in lines)


def reserved_in(text):
    return any(token in text for token in (*TOKENS, *DELIMITERS))


def covered_text(text, profile):
    shown_lines, shown_text = text, text
    if profile.placeholder == "canonical":
        shown_lines = re.sub(r"(?i)<\s*image\s*>", "", text)
    elif profile.images == "inline":
        shown_lines = text.replace("<image>", "")
    elif profile.placeholder == "drop":
        shown_lines = shown_text = re.sub("<image>\n?", "", text)
    return (
        reserved_in(text)
        or reserved_in(shown_text)
        or forged(text.splitlines(), profile)
        or forged(shown_lines.splitlines(), profile)
    )


def covered_step(index, text, profile):
    body = text.strip() if profile.steps.strip else text
    numbered = f"Step {profile.steps.first_number + index}: {body}"
    rendered = [text]
    if profile.steps.form != "split" or profile.frame in ("two_stage", "multi_turn"):
        rendered.append(numbered)
    if profile.frame == "boxed_continuation":
        rendered.append(f"{numbered}\\boxed{{0}}")
    lines = [line for shown_text in rendered for line in shown_text.splitlines()]
    first = body.splitlines()[0] if body.splitlines() else ""
    joins = profile.steps.form == "split" and first.strip().startswith("\u0338")
    return reserved_in(text) or forged(lines, profile) or joins


def only_added(changed, text):
    """Whether `changed` is `text` with blanks and quotes put in, and nothing else."""
    left = iter(changed)
    in_order = all(sign in left for sign in text)
    return in_order and set(Counter(changed) - Counter(text)) <= {" ", '"'}


BITS = st.sampled_from(
    [
        *"<|>[]{}\\/_:.",
        *"0123456789",
        *"abikmnpstx",
        *(" ", "\n", "\r\n", "\t", "\u2028"),
        *("Step ", "Step", "step 1:", "boxed", "\\boxed{1}", "im_", "end", "think", "image"),
        *("<image>", "<image>\n", "< IMAGE >", "\u200b", "１", "：", "\u0338", "é"),
        *RESERVED,
        *MARKERS,
    ]
)
SIGNS = st.one_of(BITS, st.sampled_from("<|[]{}\\01234Step"), st.characters())
TEXTS = st.one_of(
    st.lists(SIGNS, max_size=24).map("".join),
    st.lists(st.sampled_from([*"<|[]{}\\:01", "Step ", "\n"]), max_size=12).map("".join),
    st.lists(st.sampled_from([*HOSTILE.values(), *ORDINARY, "\n"]), max_size=3).map("".join),
)


@pytest.mark.parametrize("name", PROFILES)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_text_is_changed_if_and_only_if_a_rule_covers_it(name, text):
    changed = SAFE[name].text(text)
    assert (changed != text) == covered_text(text, PROFILES[name])
    assert not covered_text(changed, PROFILES[name])
    assert only_added(changed, text)


@pytest.mark.parametrize("name", PROFILES)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS, index=st.integers(0, 12))
def test_a_step_is_changed_if_and_only_if_a_rule_covers_it(name, text, index):
    changed = SAFE[name].step(index, text)
    assert (changed != text) == covered_step(index, text, PROFILES[name])
    assert not covered_step(index, changed, PROFILES[name])
    assert only_added(changed, text)


@pytest.mark.parametrize("name", PROFILES)
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_changing_a_text_again_changes_nothing(name, text):
    safe = SAFE[name]
    assert safe.text(safe.text(text)) == safe.text(text)
    assert safe.step(1, safe.step(1, text)) == safe.step(1, text)
    assert safe.generated(safe.generated(text)) == safe.generated(text)
