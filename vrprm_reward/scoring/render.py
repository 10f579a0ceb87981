"""The pieces of a prompt: sections, numbered steps, history lines, turns.

Everything here gets text that is already safe to show (see `untrusted`), and changes none of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vrprm_reward.engines.engine import Message, Part
from vrprm_reward.images import FinalImage
from vrprm_reward.scoring.profile import Profile

STEP_SPLIT = "<step split>"
PLACEHOLDER = "<image>"

_PLACEHOLDER_WITH_LINE_END = re.compile(re.escape(PLACEHOLDER) + r"\n?")


@dataclass(frozen=True)
class Case:
    """One rollout as it is shown to the reward model."""

    question: str
    steps: tuple[str, ...]
    images: tuple[FinalImage, ...]
    reference_answer: str | None = None


def step_number(profile: Profile, index: int) -> int:
    """The number under which step `index` is shown."""
    return index + profile.steps.first_number


def step_text(profile: Profile, text: str) -> str:
    """A step's text as it is shown."""
    return text.strip() if profile.steps.strip else text


def numbered(profile: Profile, index: int, text: str) -> str:
    """The line `Step n: text`, or the text alone when it already begins with that number."""
    label = f"Step {step_number(profile, index)}:"
    text = step_text(profile, text)
    return text if text.strip().lower().startswith(label.lower()) else f"{label} {text}"


def section(marker: str, body: str) -> str:
    """A marker line and, from the next line on, its body."""
    return f"{marker}\n{body}"


def opening_sections(profile: Profile, case: Case) -> dict[str, str]:
    """The sections every request opens with, by name, in the profile's order."""
    marks = profile.sections
    found: dict[str, str] = {}
    for name in profile.opening.order:
        if name == "question":
            found[name] = section(marks.question, _question(profile, case))
        elif name == "solution":
            found[name] = section(marks.solution, _solution(profile, case))
        elif name == "count":
            found[name] = section(marks.count, str(len(case.steps)))
        elif name == "task":
            found[name] = section(marks.task, profile.task)
        elif profile.show_reference:
            found[name] = section(marks.reference, case.reference_answer or "None")
    return found


def opening_text(profile: Profile, case: Case) -> str:
    """The opening sections as one text that ends a turn."""
    sections = opening_sections(profile, case).values()
    return profile.opening.gap.join(sections) + profile.opening.end


def _question(profile: Profile, case: Case) -> str:
    if profile.images == "inline" or profile.placeholder == "keep":
        return case.question
    return _PLACEHOLDER_WITH_LINE_END.sub("", case.question)


def _solution(profile: Profile, case: Case) -> str:
    if profile.steps.form == "split":
        return STEP_SPLIT.join(step_text(profile, text) for text in case.steps)
    return "\n".join(numbered(profile, i, text) for i, text in enumerate(case.steps))


def history(profile: Profile, verdicts: Sequence[int]) -> str:
    """One line for each earlier verdict, or the profile's word for none."""
    lines = [
        profile.judge.history_line.format(number=step_number(profile, i), verdict=verdict)
        for i, verdict in enumerate(verdicts)
    ]
    return "\n".join(lines) or profile.judge.empty_history


def step_request(profile: Profile, case: Case, verdicts: Sequence[int]) -> list[str]:
    """The sections that ask about the step after the ones already judged."""
    marks, index = profile.sections, len(verdicts)
    found = [section(marks.history, history(profile, verdicts))]
    current = section(marks.current, numbered(profile, index, case.steps[index]))
    return [*(found if profile.judge.show_history else []), current, profile.judge.request]


def thought(profile: Profile, thinking: str) -> str:
    """Thinking between its delimiters; nothing where the profile does not think."""
    rules = profile.think
    return f"{rules.opening}{thinking}{rules.closing}" if rules else ""


def system(text: str) -> tuple[Message, ...]:
    """A system turn, unless there is nothing to say in it."""
    return (Message("system", (text,)),) if text else ()


def assistant(text: str) -> Message:
    """A turn of the reward model."""
    return Message("assistant", (text,))


def user(profile: Profile, text: str, images: Sequence[FinalImage] = ()) -> Message:
    """A user turn with its images where the profile puts them."""
    parts: tuple[Part, ...]
    if profile.images == "after":
        parts = (text, *images)
    elif profile.images == "inline" and images:
        parts = _inline(text, images)
    else:
        parts = (*images, text)
    return Message("user", parts)


def _inline(text: str, images: Sequence[FinalImage]) -> tuple[Part, ...]:
    """Images at the placeholders, in order; those without a placeholder stand before the text."""
    pieces = text.split(PLACEHOLDER, len(images))
    placed = len(pieces) - 1
    extra = len(images) - placed
    parts: list[Part] = [*images[:extra], pieces[0]]
    for image, piece in zip(images[extra:], pieces[1:], strict=True):
        parts += [image, piece]
    return tuple(part for part in parts if part != "")
