"""A prompt that does not fit is put down to the response only where a short one would have fitted.

The engine here has a context of so many characters, and one character is one token.
"""

from dataclasses import dataclass, field

import pytest

from tests.scoring.doubles import ScriptedEngine, shown
from vrprm_reward import load_profile
from vrprm_reward.engines.engine import Generation
from vrprm_reward.errors import EngineError, PromptTooLongError
from vrprm_reward.scoring.profile import builtin_profiles
from vrprm_reward.scoring.scorer import VRPRMScorer

LONG = "word " * 400
RESPONSE = ("unscored_response", "prompt_too_long")
PROBLEM = ("unscored_ours", "problem_too_long")


@dataclass
class NarrowEngine(ScriptedEngine):
    context: int = 10**6
    image: int = 0
    """Tokens of an image, besides the text that stands for it."""

    written: list[Generation] = field(default_factory=list)

    def _tokens(self, prompt):
        return len(shown(prompt)) + self.image * len(prompt.images)

    def _check(self, prompt):
        if self._tokens(prompt) >= self.context:
            raise PromptTooLongError(tokens=self._tokens(prompt), limit=self.context - 1)

    async def generate(self, prompt, *, max_tokens, stop, share):
        self._check(prompt)
        whole = await super().generate(prompt, max_tokens=max_tokens, stop=stop, share=share)
        room = min(max_tokens, self.context - self._tokens(prompt))
        text = whole.text[:room]
        cut = "context" if room < max_tokens else "length"
        finish = whole.finish if text == whole.text else cut
        self.written.append(Generation(text, finish, self._tokens(prompt), len(text)))
        return self.written[-1]

    async def judge(self, prompt, *, share):
        self._check(prompt)
        return await super().judge(prompt, share=share)


def scored(engine, rollout, profile="two_stage", *, thinking_tokens=None, schedule="lockstep"):
    profile = load_profile(profile)
    if thinking_tokens is not None:
        think = profile.think.model_copy(update={"max_tokens": thinking_tokens})
        profile = profile.model_copy(update={"think": think})
    (score,) = VRPRMScorer(lambda: engine, profile, schedule=schedule).score([rollout])
    return score


def what(score):
    return score.status, score.reason


def lengths(make_rollout, *arguments, **more):
    """Lengths of the thinking prompt and of the first and the longest judging prompt."""
    engine = NarrowEngine(**more)
    assert scored(engine, make_rollout(*arguments)).scored
    judged = [len(shown(prompt)) for prompt in engine.judged]
    return len(shown(engine.thought[0])), judged[0], max(judged)


@pytest.mark.parametrize("profile", builtin_profiles())
def test_in_every_frame_a_long_response_is_its_own_doing_and_a_long_question_is_not(
    make_rollout, profile
):
    context = 4000
    long_response = make_rollout(LONG * 2)
    long_question = make_rollout(question=LONG * 2)
    both = make_rollout(LONG * 2, question=LONG * 2)
    found = [
        what(scored(NarrowEngine(context=context), rollout, profile))
        for rollout in (long_response, long_question, both)
    ]
    assert found == [RESPONSE, PROBLEM, PROBLEM]


def test_the_message_has_the_numbers_and_what_can_be_done(make_rollout):
    score = scored(NarrowEngine(context=2000), make_rollout(question=LONG))
    assert "and the model takes 1999: shorten the question" in score.detail
    assert "pixels.max_pixels" in score.detail


@pytest.mark.parametrize("schedule", ["lockstep", "fixed_point"])
def test_a_response_that_leaves_no_room_behind_the_thinking_is_too_long(make_rollout, schedule):
    response = "\n\n".join(["A step of some length that is like the other ones."] * 20)
    thinking = "<think>" + "n" * 400 + "</think>"
    first, _, last = lengths(make_rollout, response, thinking=thinking)
    assert first < last
    engine = NarrowEngine(thinking=thinking, context=last)
    score = scored(engine, make_rollout(response), schedule=schedule)
    assert what(score) == RESPONSE


def test_thinking_that_leaves_no_room_for_any_response_is_not_the_responses_doing(make_rollout):
    thinking = "<think>" + "n" * 600 + "</think>"
    _, shortest, _ = lengths(make_rollout, "-", thinking=thinking)
    engine = NarrowEngine(thinking=thinking, context=shortest)
    assert what(scored(engine, make_rollout("One.\n\nTwo."))) == PROBLEM
    assert [each.finish for each in engine.written] == ["stop"]


def test_thinking_that_the_context_cuts_off_counts_with_all_that_it_was_allowed(make_rollout):
    response = "A step of some length that is like the other ones.\n\n" * 20
    first, _, _ = lengths(make_rollout, response)

    def judged(thinking_tokens):
        endless = "<think>" + "n" * 5000
        engine = NarrowEngine(thinking=endless, finish="length", context=first + 100)
        score = scored(engine, make_rollout(response), thinking_tokens=thinking_tokens)
        assert engine.written[0].generated_tokens == 100
        return what(score)

    assert judged(4000) == PROBLEM
    assert judged(300) == RESPONSE


@pytest.mark.parametrize("profile", ["two_stage", "score_json"])
def test_a_response_does_not_choose_how_much_the_judge_may_think(make_rollout, profile):
    """A short one leaves room for all of the thinking, so a long one has to as well."""
    thinking = "<think>" + "n" * 1000 + "</think>"
    short, long = make_rollout("One."), make_rollout("One." + " word" * 40)
    plenty = NarrowEngine()
    scored(plenty, short, profile)
    first = len(shown(plenty.thought[0]))

    def judged(rollout):
        # The short one leaves 700 tokens and the long one 500. Judgements see no image.
        engine = NarrowEngine(thinking=thinking, image=2000, context=first + 2700)
        return scored(engine, rollout, profile, thinking_tokens=600)

    assert what(judged(long)) == RESPONSE
    assert "beside 600 tokens of thinking" in judged(long).detail
    if profile == "two_stage":
        assert judged(short).scored
        assert judged(short).flags == ("thinking_truncated",)


def test_the_engine_is_asked_only_once_more(make_rollout):
    engine = NarrowEngine(context=4000)
    scored(engine, make_rollout(LONG * 2))
    assert len(engine.thought) == 1
    assert engine.judged == []
    assert len(engine.released) == 1


def test_an_engine_that_fails_when_asked_again_is_named(make_rollout):
    class Failing(NarrowEngine):
        async def generate(self, prompt, *, max_tokens, stop, share):
            if max_tokens == 1:
                raise EngineError("out of order")
            return await super().generate(prompt, max_tokens=max_tokens, stop=stop, share=share)

    score = scored(Failing(context=4000), make_rollout(LONG * 2))
    assert what(score) == ("unscored_ours", "engine")
