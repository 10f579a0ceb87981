"""What is true of the steps that a policy wrote, by the world itself: no reward model is asked.

A step is labelled as VRPRM does: 1 when all that it says is true and it builds on nothing wrong.
Trivial sentences that are true are right; a sentence that this world does not know is wrong.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vrprm_reward.demo.moves import NUMBERS
from vrprm_reward.demo.questions import PLANS
from vrprm_reward.demo.scene import KINDS, Scene
from vrprm_reward.demo.wording import OPENINGS
from vrprm_reward.rewards.answers import final_answer, same_text
from vrprm_reward.steps import split_steps

from .demonstrations import STEPS, solution
from .problems import MOVES, Task

_COUNT = re.compile(r"(?:The number of|Counting the) (\w+) (?:is|gives) (\w+)\.")
_SUM = re.compile(r"Then (\w+) (\w+) (plus|minus|times) (?:(\w+) )?(\w+) makes (\w+)\.")
_ANSWER = re.compile(r"(?:The|So the) answer is (\w+)\.")
_OF_NOUN = {kind.noun(): kind for kind in KINDS}
_VALUE = {word: value for value, word in enumerate(NUMBERS)}

BEFORE = "that"
"""How a sum names the result of the sum before it."""


@dataclass(frozen=True)
class Truth:
    """What is true of one response."""

    labels: tuple[int, ...]
    """1 or 0 for every step."""

    right: bool
    """Whether the final answer is right."""

    repeated: int
    """Steps that say word for word what an earlier one said."""

    solved: float
    """Share of the six lines of the flawless solution that are there, in [0, 1]: unlike the share
    of right steps, it is not raised by steps that nobody needs."""

    complete: bool
    """Whether every count that was asked for and as many sums are there, right or wrong."""

    @property
    def sound(self) -> bool:
        """Whether no step is wrong."""
        return bool(self.labels) and all(self.labels)


def truth_of(task: Task, response: str) -> Truth:
    """Label the steps of a response and its final answer."""
    steps = [step.text for step in split_steps(response, STEPS)]
    stated = final_answer(response)
    wanted = solution(task, random.Random(0))
    return Truth(
        labels=tuple(labels(task, steps)),
        right=stated is not None and same_text(stated, task.question.answer),
        repeated=len(steps) - len(set(steps)),
        solved=len(set(wanted) & set(steps)) / len(set(wanted)),
        complete=_complete(task, steps),
    )


def asked_for(task: Task) -> set[str]:
    """What a problem wants counted, by its noun."""
    return {move.of[0].noun() for move in task.question.moves if move.kind == "count"}


def _complete(task: Task, steps: Sequence[str]) -> bool:
    said = [_without_opening(step) for step in steps]
    counted = {match[1] for step in said if (match := _COUNT.fullmatch(step))}
    sums = {step for step in said if _SUM.fullmatch(step)}
    return counted >= asked_for(task) and len(sums) >= MOVES.count("sum")


def labels(task: Task, steps: Sequence[str]) -> list[int]:
    """1 or 0 for every step, in order: a sum may build on the sum before it."""
    found = []
    before: int | None = None
    for step in map(_without_opening, steps):
        if match := _SUM.fullmatch(step):
            true = _sum(task.question.scene, match, before)
            found.append(int(true is not None and true == _claims(match)))
            before = None if true is None else true[-1]
        else:
            found.append(int(_holds(task, step)))
    return found


def _without_opening(step: str) -> str:
    """A correction as if it were said for the first time."""
    for opening in OPENINGS:
        if step.startswith(f"{opening} "):
            rest = step.removeprefix(f"{opening} ")
            return rest[0].upper() + rest[1:]
    return step


def _holds(task: Task, step: str) -> bool:
    if match := _COUNT.fullmatch(step):
        kind = _OF_NOUN.get(match[1])
        return kind is not None and task.question.scene.count(kind) == _VALUE.get(match[2])
    if match := _ANSWER.fullmatch(step):
        return match[1] == task.question.answer
    return step in PLANS


def _claims(match: re.Match[str]) -> tuple[int | None, ...]:
    return _VALUE.get(match[2]), _VALUE.get(match[5]), _VALUE.get(match[6])


def _sum(
    scene: Scene, match: re.Match[str], before: int | None
) -> tuple[int | None, int | None, int] | None:
    """Both numbers and the result as they should be; None where the step names nothing known."""
    first = _number(scene, match[1], before)
    second = _number(scene, match[4], before) if match[4] else _VALUE.get(match[5])
    if first is None or second is None:
        return None
    results = {"plus": first + second, "minus": first - second, "times": first * second}
    return first, second, results[match[3]]


def _number(scene: Scene, name: str, before: int | None) -> int | None:
    if name == BEFORE:
        return before
    kind = _OF_NOUN.get(name)
    return None if kind is None else scene.count(kind)
