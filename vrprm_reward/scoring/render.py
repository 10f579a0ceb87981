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
_ANY_PLACEHOLDER = re.compile(r"<\s*image\s*>", re.IGNORECASE)
_MEDIA_TAG = re.compile(r"<\s*/?\s*(image|video)\s*>", re.IGNORECASE)


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
    if profile.placeholder == "canonical":
        text = _MEDIA_TAG.sub(lambda tag: f" {tag[1].lower()} ", text)
    return text.strip() if profile.steps.strip else text


def numbered(profile: Profile, index: int, text: str) -> str:
    """`Step n: text`; the text alone if it begins so already and the profile leaves it at that."""
    label = f"Step {step_number(profile, index)}:"
    text = step_text(profile, text)
    if profile.steps.label == "when_missing" and text.strip().lower().startswith(label.lower()):
        return text
    return f"{label} {text}"


def section(marker: str, body: str) -> str:
    """A marker line and, from the next line on, its body."""
    return f"{marker}\n{body}"


def opening_sections(profile: Profile, case: Case) -> dict[str, str]:
    """The sections every request opens with, by name, in the profile's order."""
    marks = profile.sections
    found: dict[str, str] = {}
    for name in profile.opening.order:
        if name == "question":
            found[name] = section(marks.question, question_text(profile, case))
        elif name == "solution":
            found[name] = section(marks.solution, _solution(profile, case))
        elif name == "count":
            found[name] = section(marks.count, str(len(case.steps)))
        elif name == "task":
            found[name] = section(marks.task, profile.task)
        elif profile.show_reference:
            answer = "None" if case.reference_answer is None else case.reference_answer
            found[name] = section(marks.reference, answer)
    return found


def opening_text(profile: Profile, case: Case) -> str:
    """The opening sections as one text that ends a turn."""
    sections = opening_sections(profile, case).values()
    return profile.opening.gap.join(sections) + profile.opening.end


def question_text(profile: Profile, case: Case) -> str:
    """The question as it is shown."""
    if profile.placeholder == "canonical":
        return _canonical(case.question.strip(), len(case.images)).strip()
    if profile.images == "inline" or profile.placeholder == "keep":
        return case.question
    return _PLACEHOLDER_WITH_LINE_END.sub("", case.question)


def _canonical(question: str, images: int) -> str:
    """One `<image>` for each image: surplus ones become the word, missing ones go in front."""
    placed = min(len(_ANY_PLACEHOLDER.findall(question)), images)
    question = _ANY_PLACEHOLDER.sub(PLACEHOLDER, question, count=images)
    parts = question.split(PLACEHOLDER, placed)
    parts[-1] = _ANY_PLACEHOLDER.sub(" image ", parts[-1])
    question = PLACEHOLDER.join(parts)
    missing = " ".join([PLACEHOLDER] * (images - placed))
    return f"{missing}\n{question}" if missing else question


def _solution(profile: Profile, case: Case) -> str:
    if profile.steps.form == "split":
        return STEP_SPLIT.join(step_text(profile, text) for text in case.steps)
    between = STEP_SPLIT if profile.steps.form == "numbered_split" else "\n"
    return between.join(numbered(profile, i, text) for i, text in enumerate(case.steps))


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


def user(profile: Profile, case: Case, text: str, images: Sequence[FinalImage] = ()) -> Message:
    """A user turn that shows `case`, with its images where the profile puts them."""
    parts: tuple[Part, ...]
    if profile.images == "after":
        parts = (text, *images)
    elif profile.images == "inline" and images:
        parts = _inline(profile, case, text, images)
    else:
        parts = (*images, text)
    return Message("user", parts)


def _inline(
    profile: Profile, case: Case, text: str, images: Sequence[FinalImage]
) -> tuple[Part, ...]:
    """Images at the question's placeholders, in order; the first ones that have none before it.

    Only the question is searched: a `<image>` that a policy writes must not move an image.
    """
    question = question_text(profile, case)
    heading = section(profile.sections.question, "")
    start = text.index(heading + question) + len(heading)
    pieces = question.split(PLACEHOLDER, len(images))
    pieces[0] = text[:start] + pieces[0]
    pieces[-1] += text[start + len(question) :]
    extra = len(images) - (len(pieces) - 1)
    parts: list[Part] = [*images[:extra], pieces[0]]
    for image, piece in zip(images[extra:], pieces[1:], strict=True):
        parts += [image, piece]
    return tuple(part for part in parts if part != "")
