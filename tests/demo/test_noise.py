"""Noise around steps claims nothing: labels and notes stay, and prompts show it neutralised."""

import random

import pytest

from vrprm_reward import load_profile
from vrprm_reward.demo import world
from vrprm_reward.demo.moves import NUMBERS
from vrprm_reward.demo.noise import Noise, words
from vrprm_reward.demo.samples import case_of, thinking_of
from vrprm_reward.demo.tokenizer import PLAIN_TOKENS, SPECIAL_TOKENS
from vrprm_reward.scoring.untrusted import Neutraliser

TOKENS = (*SPECIAL_TOKENS, *PLAIN_TOKENS)


@pytest.fixture(scope="module", params=["demo", "boxed_continuation", "score_json"])
def noisy(request):
    profile = load_profile(request.param)
    noise, rng = Noise(profile, TOKENS), random.Random(3)
    plain = [world.random_example(rng) for _ in range(200)]
    return profile, plain, [noise.around(example, rng) for example in plain]


def test_the_sentence_stays_and_with_it_label_and_notes(noisy) -> None:
    profile, plain, changed = noisy
    for before, after in zip(plain, changed, strict=True):
        assert after.labels == before.labels
        assert thinking_of(after, profile) == thinking_of(before, profile)
        assert all(b.text in a.text for b, a in zip(before.steps, after.steps, strict=True))


def test_many_steps_have_noise_and_some_have_none(noisy) -> None:
    _, plain, changed = noisy
    pairs = [
        (b.text, a.text)
        for before, after in zip(plain, changed, strict=True)
        for b, a in zip(before.steps, after.steps, strict=True)
    ]
    share = sum(b != a for b, a in pairs) / len(pairs)
    assert 0.6 < share < 0.75
    assert any("\n" in a for _, a in pairs)


def test_prompts_show_it_as_the_scorer_would(noisy) -> None:
    profile, _, changed = noisy
    safe = Neutraliser(profile, TOKENS)
    for example in changed:
        shown = case_of(example, profile).steps
        assert shown == tuple(safe.step(i, text) for i, text in enumerate(shown))
        assert not any(token in text for text in shown for token in TOKENS)


def test_words_mean_nothing() -> None:
    rng = random.Random(4)
    found = [word.strip(".!?:,…)").lower() for _ in range(300) for word in words(rng).split()]
    telling = {*NUMBERS, "right", "wrong", "yes", "no"}
    assert len(set(found) & telling) <= 2
