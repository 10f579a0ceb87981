"""Frames: where in a conversation the thinking and the verdicts stand.

One mechanism for all of them: a text is generated once (`think`), then the verdict of each step is
the next token of a prompt (`judge`) that holds the verdicts before it. The number of steps is
ours, never the model's.

| frame                | the verdict of step k is the next token of                               |
|----------------------|--------------------------------------------------------------------------|
| `two_stage`          | a fresh request that shows the thinking instead of the images            |
| `multi_turn`         | the next turn of one conversation, images in context                     |
| `answer_block`       | the line `Step k: ` of an `<answer>` block after the thinking            |
| `score_json`         | the `\\boxed{` of line k of a generated step analysis                     |
| `score_list`         | position k of a `{"Score": [...]}` list, without thinking                |
| `boxed_continuation` | a raw completion: steps one after another, each followed by `\\boxed{`    |
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vrprm_reward.engines.engine import Generation, Message, Prompt
from vrprm_reward.errors import AnalysisError
from vrprm_reward.images import FinalImage
from vrprm_reward.scoring import render
from vrprm_reward.scoring.parse import Thought, parse_thinking
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case


@dataclass(frozen=True)
class Frame:
    """How one family of checkpoints is asked."""

    judge: Callable[[Profile, Case, Thought, Sequence[int]], Prompt]
    """(profile, case, thought, verdicts of the steps before) -> prompt of the next verdict."""

    read: Callable[[Generation, Profile, Case], Thought]
    """What was generated -> what the judgements need of it."""

    stop: Callable[[Profile], str | None]
    """The string that ends the generated text."""

    independent: bool = False
    """Whether a verdict's prompt is the same whatever the verdicts before it were."""


def think_prompt(profile: Profile, case: Case) -> Prompt:
    """The request whose answer is generated: the same in every frame that thinks."""
    return Prompt(_conversation(profile, case))


def _conversation(profile: Profile, case: Case) -> tuple[Message, ...]:
    """System turn and the user turn that shows everything."""
    text = profile.think.system if profile.think else profile.judge.system
    opening = render.opening_text(profile, case)
    return (*render.system(text), render.user(profile, case, opening, case.images))


def _read_thinking(generation: Generation, profile: Profile, case: Case) -> Thought:  # noqa: ARG001
    assert profile.think is not None
    return parse_thinking(generation, profile.think)


def _closing(profile: Profile) -> str | None:
    return profile.think.closing if profile.think else None


def _two_stage(profile: Profile, case: Case, thought: Thought, verdicts: Sequence[int]) -> Prompt:
    parts = list(render.opening_sections(profile, case).values())
    if profile.think is not None:
        notes = render.thought(profile, thought.text)
        parts.append(render.section(profile.sections.thinking, notes))
    parts += render.step_request(profile, case, verdicts)
    images = case.images if profile.judge.images == "each" else ()
    text = profile.opening.gap.join(parts)
    turn = render.user(profile, case, text, images)
    return Prompt((*render.system(profile.judge.system), turn))


def _multi_turn(profile: Profile, case: Case, thought: Thought, verdicts: Sequence[int]) -> Prompt:
    if profile.think is None:
        turns = list(render.system(profile.judge.system))
    else:
        notes = render.assistant(render.thought(profile, thought.text))
        turns = [*_conversation(profile, case), notes]
    for index in range(len(verdicts) + 1):
        parts = render.step_request(profile, case, verdicts[:index])
        images: tuple[FinalImage, ...] = ()
        if profile.think is None:
            # No turn of its own shows the problem, so each turn does; only the first has images.
            parts = [render.opening_text(profile, case), *parts]
            images = case.images if index == 0 else ()
        turns.append(render.user(profile, case, profile.opening.gap.join(parts), images))
        if index < len(verdicts):
            turns.append(render.assistant(str(verdicts[index])))
    return Prompt(tuple(turns))


def _continued(profile: Profile, case: Case, answer: str) -> Prompt:
    """The conversation with the beginning of the reward model's answer."""
    return Prompt((*_conversation(profile, case), render.assistant(answer)), form="continue")


def _answer_block(
    profile: Profile, case: Case, thought: Thought, verdicts: Sequence[int]
) -> Prompt:
    notes = render.thought(profile, thought.text)
    lines = [f"Step {render.step_number(profile, i)}: " for i in range(len(verdicts) + 1)]
    given = "".join(f"{line}{v}\n" for line, v in zip(lines, verdicts, strict=False))
    start = f"{notes}\n<answer>\n" if notes else "<answer>\n"
    return _continued(profile, case, start + given + lines[-1])


def _score_list(profile: Profile, case: Case, thought: Thought, verdicts: Sequence[int]) -> Prompt:  # noqa: ARG001
    given = "".join(f"{verdict}, " for verdict in verdicts)
    return _continued(profile, case, '{"Score": [' + given)


def _score_json(profile: Profile, case: Case, thought: Thought, verdicts: Sequence[int]) -> Prompt:
    return _continued(profile, case, thought.prefixes[len(verdicts)])


def _read_analysis(generation: Generation, profile: Profile, case: Case) -> Thought:
    """Find the `\\boxed{` of each analysis line: exactly one line for each step, in order."""
    assert profile.think is not None
    thought = parse_thinking(generation, profile.think)
    after_thinking = max(0, generation.text.find(profile.think.closing))
    start = generation.text.find(profile.sections.analysis, after_thinking)
    pattern = re.compile(profile.judge.analysis_line, re.MULTILINE)
    lines = list(pattern.finditer(generation.text, max(start, after_thinking)))
    found = [int(line[1]) if (line[1] or "").isdecimal() else line[1] for line in lines]
    wanted = [render.step_number(profile, index) for index in range(len(case.steps))]
    if found != wanted:
        raise AnalysisError(
            f"the reward model's analysis has lines for steps {found} and the response has steps "
            f"{wanted[0]} to {wanted[-1]}"
        )
    prefixes = tuple(generation.text[: line.end()] for line in lines)
    return Thought(thought.text, thought.flags, prefixes)


def _end_of_analysis(profile: Profile) -> str | None:
    return profile.sections.scores


def _boxed_continuation(
    profile: Profile, case: Case, thought: Thought, verdicts: Sequence[int]
) -> Prompt:
    sections = render.opening_sections(profile, case)
    parts = [text for name, text in sections.items() if name != "solution"]
    notes = render.thought(profile, thought.text) if thought.text else ""
    text = "".join(f"{part}\n" for part in (*parts, notes) if part)
    text += f"{profile.sections.verdicts}\n"
    for index in range(len(verdicts) + 1):
        number, step = render.step_number(profile, index), case.steps[index]
        text += f"Step {number}: {render.step_text(profile, step)}\\boxed{{"
        text += f"{verdicts[index]}}}\n" if index < len(verdicts) else ""
    return Prompt((Message("user", (text,)),), form="raw")


FRAMES = {
    "two_stage": Frame(_two_stage, _read_thinking, _closing),
    "multi_turn": Frame(_multi_turn, _read_thinking, _closing),
    "answer_block": Frame(_answer_block, _read_thinking, _closing),
    "score_json": Frame(_score_json, _read_analysis, _end_of_analysis, independent=True),
    "score_list": Frame(_score_list, _read_thinking, _closing),
    "boxed_continuation": Frame(_boxed_continuation, _read_thinking, _closing),
}
