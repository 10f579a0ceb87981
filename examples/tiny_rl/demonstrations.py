"""Solutions that a policy is taught to imitate, as wrong as it is to be at the start."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from vrprm_reward.demo.moves import Move, spelt, value_of
from vrprm_reward.demo.wording import Version, sentence_of
from vrprm_reward.demo.wording import plain as plain_text
from vrprm_reward.steps import StepSettings

from .problems import Task

SEPARATOR = "\n"
STEPS = StepSettings(rule="separator", separator=SEPARATOR)
"""What a step is, for the reward model and the truth alike: a line, whatever else is written."""

LARGEST_COUNT, LARGEST_RESULT = 5, 15


@dataclass(frozen=True)
class Errors:
    """How often a step of each kind states a wrong number, whatever it builds on."""

    count: float = 0.0
    sum: float = 0.0
    final: float = 0.0


def solution(task: Task, rng: random.Random, errors: Errors = Errors()) -> list[str]:
    """The steps of one solution. What is written is believed by the steps behind it.

    Wrong numbers are drawn evenly, so that errors seldom make up for one another.
    """
    truth: dict[str, str] = {}
    belief: dict[str, str] = {}
    steps = []
    for move in task.question.moves:
        true = Version(
            {name: truth[name] for name in move.uses}, value_of(move, task.question.scene, truth)
        )
        told = {name: belief[name] for name in move.uses}
        value = _stated(move, value_of(move, task.question.scene, told), rng, errors)
        truth[move.name], belief[move.name] = true.value, value
        # Always the first wording: fewer responses differ, so fewer have to be scored.
        words = random.Random(FIRST_WORDING)
        sentence = sentence_of(move, Version(told, value), true, task.question.scene, words)
        steps.append(plain_text(sentence))
    return steps


FIRST_WORDING = 1


def _stated(move: Move, value: str, rng: random.Random, errors: Errors) -> str:
    wrong = {"count": errors.count, "sum": errors.sum, "final": errors.final}[move.kind]
    largest = LARGEST_COUNT if move.kind == "count" else LARGEST_RESULT
    number = int(value)
    outside = not 0 <= number <= LARGEST_RESULT
    if outside or rng.random() < wrong:
        return str(rng.choice([other for other in range(largest + 1) if other != number]))
    return value


def response_of(steps: Sequence[str]) -> str:
    """Steps as the policy writes them, a line each."""
    return SEPARATOR.join(steps)


def spelt_answer(task: Task) -> str:
    """The right answer as a word."""
    return spelt(task.question.answer)
