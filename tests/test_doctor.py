"""The doctor names the frame an engine follows, and no other."""

import asyncio
import math
import re
from dataclasses import replace

import pytest

from tests.scoring.doubles import shown
from vrprm_reward import doctor, load_profile
from vrprm_reward.demo.samples import answer_of
from vrprm_reward.engines.engine import Generation, Judgement

FRAMES = (
    "two_stage",
    "multi_turn",
    "answer_block",
    "score_json",
    "score_list",
    "boxed_continuation",
)
PROFILES = {name: load_profile(name) for name in FRAMES}


def frame_of_prompt(prompt) -> str:
    text = shown(prompt)
    if prompt.form == "raw":
        return "boxed_continuation"
    if prompt.form == "continue":
        last = prompt.messages[-1].parts[0]
        if last.startswith('{"Score"'):
            return "score_list"
        return "answer_block" if "<answer>" in last else "score_json"
    return (
        "multi_turn"
        if len(prompt.messages) > 3
        else "two_stage"
        if "assistant:" not in text
        else ""
    )


class FollowsOneFrame:
    """Behaves like a checkpoint trained on one frame: anything else gets idle talk."""

    identity = "double"
    added_tokens = frozenset()
    deterministic = False

    def __init__(self, frame: str, sharp: bool = True) -> None:
        self.profile = load_profile(frame)
        self.examples = {example.question: example for example in doctor.samples()}
        self.mass = 0.98 if sharp else 0.02

    def fixed_point_pays(self, *, rollouts, steps):
        return False

    def example_in(self, text):
        return next(e for q, e in self.examples.items() if q in text)

    async def generate(self, prompt, *, max_tokens, stop, share):
        await asyncio.sleep(0)
        wanted = self.profile.think.system if self.profile.think else None
        text = "I am a helpful assistant."
        if wanted is not None and wanted in shown(prompt) and self.is_own_opening(prompt):
            text = answer_of(self.example_in(shown(prompt)), self.profile)
        return Generation(text, "stop", 1, 1)

    def is_own_opening(self, prompt):
        marker = self.profile.sections.solution
        task = self.profile.task
        return marker + "\n" in shown(prompt) and (not task or task in shown(prompt))

    async def judge(self, prompt, *, share):
        await asyncio.sleep(0)
        text = shown(prompt)
        example = self.example_in(text)
        if frame_of_prompt(prompt) != self.profile.frame:
            return Judgement(math.log(0.001), math.log(0.001), 1)
        if self.profile.frame == "score_list":
            index = len(re.findall(r"[01], ", text.rsplit("[", 1)[1]))
        else:
            index = int(re.findall(r"Step (\d+):", text)[-1])
        right = self.mass * 0.9
        label = example.labels[index]
        return Judgement(
            math.log(self.mass - right if label else right),
            math.log(right if label else self.mass - right),
            1,
        )

    def expect(self, share): ...

    def release(self, share): ...

    def close(self): ...


def tried(engine, profiles):
    return doctor.try_profiles(lambda template: engine, profiles)


@pytest.mark.parametrize("frame", FRAMES)
def test_the_followed_frame_comes_first_and_alone(frame):
    evidence = tried(FollowsOneFrame(frame), PROFILES)
    assert evidence[0].profile == frame
    assert evidence[0].followed
    assert not any(row.followed for row in evidence[1:])
    assert evidence[0].agreement == 1.0
    assert evidence[0].mass == pytest.approx(0.98)


def test_only_frames_that_are_followed_as_well_stand_beside_the_best():
    best, *others = tried(FollowsOneFrame("score_json"), PROFILES)
    assert not any(doctor.as_good(other, best) for other in others)
    twin = replace(best, profile="twin", agreement=best.agreement - 0.04)
    worse = replace(best, profile="worse", agreement=best.agreement - 0.06)
    assert [doctor.as_good(row, best) for row in (twin, worse)] == [True, False]


def test_an_engine_that_gives_the_verdicts_no_mass_follows_nothing():
    evidence = tried(
        FollowsOneFrame("two_stage", sharp=False), {"two_stage": PROFILES["two_stage"]}
    )
    assert not evidence[0].followed
    assert evidence[0].mass == pytest.approx(0.02)


def test_renormalised_probabilities_leave_the_mass_unknown():
    class Renormalised(FollowsOneFrame):
        async def judge(self, prompt, *, share):
            raw = await super().judge(prompt, share=share)
            total = math.log(math.exp(raw.log_p0) + math.exp(raw.log_p1))
            return Judgement(raw.log_p0 - total, raw.log_p1 - total, 1)

    (evidence,) = tried(Renormalised("multi_turn"), {"multi_turn": PROFILES["multi_turn"]})
    assert evidence.mass is None
    assert evidence.followed


@pytest.mark.parametrize("order", [1, -1])
def test_every_profile_is_tried_under_its_own_conversation_template(order):
    other = "### {{ messages }}"
    profiles = [
        ("two_stage", load_profile("two_stage")),
        ("mine.toml", load_profile("multi_turn").model_copy(update={"conversation": other})),
        ("score_list", load_profile("score_list")),
    ][::order]
    made, closed = [], []

    class UnderOneTemplate(FollowsOneFrame):
        """A checkpoint that follows two_stage, and multi_turn under no template but the other."""

        def __init__(self, template):
            super().__init__("multi_turn" if template == other else "two_stage")
            made.append(template)

        def close(self):
            closed.append(made[-1])

    evidence = doctor.try_profiles(UnderOneTemplate, dict(profiles))
    assert {row.profile: row.followed for row in evidence} == {
        "two_stage": True,
        "mine.toml": True,
        "score_list": False,
    }
    assert sorted(made) == sorted({profile.conversation for _, profile in profiles})
    assert closed == made


def test_two_profiles_of_one_name_are_told_apart_by_what_was_asked_for():
    named_alike = load_profile("multi_turn").model_copy(update={"name": "two_stage"})
    evidence = tried(FollowsOneFrame("multi_turn"), {**PROFILES, "profiles/mine.toml": named_alike})
    best = {row.profile for row in evidence[:2]}
    assert best == {"multi_turn", "profiles/mine.toml"}
    assert [row.followed for row in evidence] == [True, True, *[False] * (len(PROFILES) - 1)]


def test_samples_hold_both_verdicts_and_are_always_the_same():
    assert [e.question for e in doctor.samples()] == [e.question for e in doctor.samples()]
    assert all(set(example.labels) == {0, 1} for example in doctor.samples())


STRIPS_THINKING = """{%- for message in messages -%}
{%- set text = message.content if message.content is string else message.content[-1].text -%}
{%- if message.role == 'assistant' and '</think>' in text -%}
{%- set text = text.split('</think>')[-1] -%}
{%- endif -%}
{{ '<|im_start|>' + message.role + '\n' + text + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n<think>\n' }}{%- endif -%}"""

TOKENS = frozenset(
    {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"}
)


def test_a_template_that_strips_thinking_is_found_with_its_remedy():
    found = doctor.check_checkpoint(TOKENS, 8192, STRIPS_THINKING, PROFILES)
    by_name = {finding.what: finding for finding in found}
    assert by_name["special tokens"].ok
    assert by_name["profiles' templates"].ok
    assert not by_name["checkpoint's template"].ok
    assert "chat-template" in by_name["checkpoint's template"].detail


def test_missing_tokens_and_a_short_context_are_found():
    found = doctor.check_checkpoint(TOKENS - {"<|image_pad|>"}, 512, None, PROFILES)
    assert [finding.ok for finding in found] == [False, False, True, True]
    assert "<|image_pad|>" in found[0].detail


def test_the_template_of_every_profile_is_looked_at():
    bad = PROFILES["answer_block"].model_copy(update={"conversation": STRIPS_THINKING})
    found = doctor.check_checkpoint(TOKENS, 8192, None, {**PROFILES, "mine.toml": bad})
    (templates,) = (finding for finding in found if finding.what == "profiles' templates")
    assert not templates.ok
    assert templates.detail.startswith("mine.toml: ")
    assert "two_stage" not in templates.detail
