"""The pieces of a prompt: sections, numbered steps, history lines, user turns.

Everything here gets text that is already safe to show (see `untrusted`), and changes none of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vrprm_reward.engines.engine import Message, Part
from vrprm_reward.images import FinalImage
from vrprm_reward.scoring.profile import Profile


@dataclass(frozen=True)
class Case:
    """One rollout as it is shown to the reward model."""

    question: str
    steps: tuple[str, ...]
    images: tuple[FinalImage, ...]
    reference_answer: str | None = None


def numbered(profile: Profile, index: int, text: str) -> str:
    """The line `Step n: text`, or the text alone when it already begins with that number."""
    label = f"Step {index + profile.steps.first_number}:"
    if profile.steps.strip:
        text = text.strip()
    return text if text.strip().lower().startswith(label.lower()) else f"{label} {text}"


def section(marker: str, body: str) -> str:
    """A marker line and, from the next line on, its body."""
    return f"{marker}\n{body}"


def task(profile: Profile, case: Case) -> list[str]:
    """The sections every request opens with: question, reference if shown, solution."""
    marks = profile.sections
    parts = [section(marks.question, case.question)]
    if profile.show_reference:
        parts.append(section(marks.reference, case.reference_answer or "None"))
    solution = "\n".join(numbered(profile, i, text) for i, text in enumerate(case.steps))
    return [*parts, section(marks.solution, solution)]


def history(profile: Profile, verdicts: Sequence[int]) -> str:
    """One line for each earlier verdict, or the profile's word for none."""
    rules = profile.judge
    first = profile.steps.first_number
    lines = [
        rules.history_line.format(number=index + first, verdict=verdict)
        for index, verdict in enumerate(verdicts)
    ]
    return "\n".join(lines) or rules.empty_history


def step_request(profile: Profile, case: Case, verdicts: Sequence[int]) -> list[str]:
    """The sections that ask about the step after the ones already judged."""
    marks, index = profile.sections, len(verdicts)
    return [
        section(marks.history, history(profile, verdicts)),
        section(marks.current, numbered(profile, index, case.steps[index])),
        profile.judge.request,
    ]


def thought(profile: Profile, thinking: str) -> str:
    """Thinking between its delimiters."""
    rules = profile.think
    return f"{rules.opening}{thinking}{rules.closing}" if rules else thinking


def system(text: str) -> Message:
    """A system turn."""
    return Message("system", (text,))


def user(profile: Profile, text: str, images: Iterable[FinalImage] = ()) -> Message:
    """A user turn with its images before or after the text, as the profile says."""
    pictures = tuple(images)
    parts: tuple[Part, ...] = (*pictures, text) if profile.images == "before" else (text, *pictures)
    return Message("user", parts)
