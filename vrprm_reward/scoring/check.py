"""Try a profile out without a model: render every request of its frame and look at it."""

from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image
from pydantic import BaseModel

from vrprm_reward.engines.engine import Prompt
from vrprm_reward.images import FinalImage, PixelLimits, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile, SectionName
from vrprm_reward.scoring.render import Case, numbered
from vrprm_reward.scoring.template import check_template

_THINKING = ("<think>", "</think>")
_PREFIXES = ("analysis 0 \\boxed{", "analysis 1 \\boxed{", "analysis 2 \\boxed{")
_NOTES = Thought("Sample notes.", prefixes=_PREFIXES)
_VERDICTS: tuple[tuple[int, ...], ...] = ((), (1,), (1, 0))


def sample_case() -> Case:
    """Three steps about two images, with a reference answer."""
    images = final_pixels([Image.new("RGB", (64, 64))] * 2, PixelLimits())
    steps = ("Sample step alpha.", "Sample step beta.", "Sample step gamma.")
    return Case("Sample question?", steps, images, "sample answer")


def sample_prompts(profile: Profile) -> dict[int | None, Prompt]:
    """Every request a profile makes about a sample: by step, and None for the thinking."""
    case = sample_case()
    found: dict[int | None, Prompt] = {}
    if profile.think is not None:
        found[None] = think_prompt(profile, case)
    for verdicts in _VERDICTS:
        prompt = FRAMES[profile.frame].judge(profile, case, _NOTES, verdicts)
        found[len(verdicts)] = prompt
    return found


def profile_problems(profile: Profile) -> list[str]:
    """Why a profile cannot be relied on; empty when it can.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    rules = profile.think
    delimiters = (rules.opening, rules.closing) if rules else _THINKING
    problems = [
        f"conversation: {problem}" for problem in check_template(profile.conversation, delimiters)
    ]
    for step, prompt in sample_prompts(profile).items():
        name = "the thinking request" if step is None else f"the request about step {step}"
        problems += [f"{name} {problem}" for problem in _prompt_problems(profile, step, prompt)]
    return problems


def profile_notes(profile: Profile) -> list[str]:
    """Keys that are set and change no request, and other things worth knowing."""
    notes = [
        f"{key} is set, but changes no request of the frame {profile.frame}"
        for key in _without_effect(profile)
    ]
    if profile.show_reference:
        notes.append(
            "the reference answer is shown: scores are not comparable with those of a model that "
            "has to find the answer itself"
        )
    return notes


def _prompt_problems(profile: Profile, step: int | None, prompt: Prompt) -> Iterator[str]:
    text = "\n".join(
        _shown(message.parts) for message in prompt.messages if message.role != "system"
    )
    lines = text.split("\n")
    for marker, times in _expected_markers(profile, step).items():
        if lines.count(marker) < times:
            yield (
                f"lacks the section {marker}: no line is nothing but this marker (opening.gap and "
                "opening.end must have line breaks)"
            )
        elif lines.count(marker) > times:
            yield f"has the marker {marker} on {lines.count(marker)} lines instead of {times}"
    for needed in _expected_texts(profile, step):
        if needed not in text:
            yield f"does not show {needed!r}"
    wanted = _expected_images(profile, step)
    if len(prompt.images) != wanted:
        yield f"has {len(prompt.images)} images instead of {wanted}"


def _shown(parts: Sequence[str | FinalImage]) -> str:
    return "".join(part if isinstance(part, str) else "" for part in parts)


def _expected_markers(profile: Profile, step: int | None) -> dict[str, int]:
    """Marker line -> how often it must stand in a request, apart from the system turn."""
    marks, frame = profile.sections, profile.frame
    by_section: dict[SectionName, str] = {
        "question": marks.question, "reference": marks.reference, "solution": marks.solution,
        "count": marks.count, "task": marks.task,
    }  # fmt: skip
    shown = [s for s in profile.opening.order if s != "reference" or profile.show_reference]
    expected = {by_section[section]: 1 for section in shown}
    if step is None:
        return expected
    if frame == "multi_turn" and profile.think is None:
        expected = dict.fromkeys(expected, step + 1)
    if frame == "boxed_continuation":
        del expected[marks.solution]
        expected[marks.verdicts] = 1
    if frame in ("two_stage", "multi_turn"):
        turns = step + 1 if frame == "multi_turn" else 1
        expected[marks.current] = turns
        expected[marks.history] = turns if profile.judge.show_history else 0
    if frame == "two_stage":
        expected[marks.thinking] = 0 if profile.think is None else 1
    return expected


def _expected_texts(profile: Profile, step: int | None) -> list[str]:
    case = sample_case()
    texts = [case.question, *case.steps[: None if step is None else step + 1]]
    if profile.show_reference:
        texts.append(case.reference_answer or "")
    if step is None:
        return texts
    if profile.frame in ("two_stage", "multi_turn"):
        texts += [numbered(profile, step, case.steps[step]), profile.judge.request]
    if profile.think is not None:
        texts.append(_PREFIXES[step] if profile.frame == "score_json" else _NOTES.text)
    return texts


def _expected_images(profile: Profile, step: int | None) -> int:
    if step is not None and profile.frame == "boxed_continuation":
        return 0
    if step is not None and profile.frame == "two_stage" and profile.judge.images == "never":
        return 0
    return len(sample_case().images)


_CHANGES: dict[str, Any] = {
    "task": "another task",
    "think.system": "another system prompt",
    "judge.system": "another system prompt",
    "judge.request": "another request",
    "judge.images": "never",
    "judge.show_history": True,
    "judge.empty_history": "another word",
    "judge.history_line": "{number} {verdict}",
    "opening.end": "another end",
    "steps.label": "when_missing",
    "placeholder": "drop",
}
"""Keys that some frames do not use -> another value."""


def _without_effect(profile: Profile) -> list[str]:
    """Keys whose value is not the default, and that could as well have another one."""
    requests = _texts(profile)
    found = []
    for key, value in _CHANGES.items():
        table, _, field = key.rpartition(".")
        holder: BaseModel | None = getattr(profile, table) if table else profile
        if holder is None or getattr(holder, field) == type(holder).model_fields[field].default:
            continue
        changed = holder.model_copy(update={field: value})
        other = profile.model_copy(update={table: changed}) if table else changed
        assert isinstance(other, Profile)
        if _texts(other) == requests:
            found.append(key)
    return found


def _texts(profile: Profile) -> list[list[str]]:
    """All requests about a sample whose question and steps use every feature."""
    plain = sample_case()
    steps = ("Step 0: Step 1: sample <image>", "Step 1: sample", "Step 2: sample")
    case = Case("<image> Sample question?", steps, plain.images, plain.reference_answer)
    prompts = [FRAMES[profile.frame].judge(profile, case, _NOTES, v) for v in _VERDICTS]
    if profile.think is not None:
        prompts.append(think_prompt(profile, case))
    return [
        [
            part if isinstance(part, str) else "image"
            for turn in prompt.messages
            for part in turn.parts
        ]
        for prompt in prompts
    ]
