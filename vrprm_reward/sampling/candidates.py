"""Rows of problems with several candidate answers, and which of these answers are equal."""

from dataclasses import dataclass

from vrprm_reward.errors import StepError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import NO_STEPS, Fields, kind_of
from vrprm_reward.jobs.keys import problem_key
from vrprm_reward.rewards.answers import final_answer, percentage, same_text
from vrprm_reward.rewards.outcome import OutcomeCheck
from vrprm_reward.steps import join_steps, locate_steps
from vrprm_reward.types import Problem, Rollout


@dataclass(frozen=True)
class ProblemRow:
    """A problem with its candidates."""

    line: int
    """1-based number of the row."""

    id: str | int
    """The row's own id, or its number."""

    problem: Problem
    """With its reference answer, if the row has one."""

    rollouts: tuple[Rollout, ...]
    """The candidates, without the reference answer."""

    def problem_key(self) -> bytes:
        """Equal for rows with the same question and images."""
        return problem_key(self.problem)


def problem_row(fields: Fields, images: ImageSettings) -> ProblemRow:
    """A row with `candidates`: texts, or objects with `response` or `steps`. Raises `RowError`.

    `responses` is understood as well. `answer` is read as `reference_answer` where that is missing.
    """
    if fields.values.get("reference_answer") is None:
        fields = Fields(
            {**fields.values, "reference_answer": fields.values.get("answer")}, fields.line
        )
    problem = fields.problem(images)
    hidden = problem.model_copy(update={"reference_answer": None})
    name = "responses" if fields.values.get("candidates") is None else "candidates"
    values = fields.values.get(name)
    if values is None:
        fields.refuse("candidates", "missing: give the answers to choose from as a list")
    if not isinstance(values, list):
        fields.refuse(name, f"{kind_of(values)}: give a list of responses")
    if not values:
        fields.refuse(name, "empty: give at least one response")
    rollouts = tuple(
        _candidate(fields, f"{name}[{index}]", value, hidden) for index, value in enumerate(values)
    )
    return ProblemRow(fields.line, fields.id(), problem, rollouts)


def _candidate(fields: Fields, name: str, value: object, problem: Problem) -> Rollout:
    if not isinstance(value, dict):
        return Rollout(problem=problem, response=fields.checked_text(name, value))
    response, steps = value.get("response"), value.get("steps")
    if steps is None:
        if response is None:
            fields.refuse(f"{name}.response", "missing: give 'response', or 'steps' as a list")
        return Rollout(problem=problem, response=fields.checked_text(f"{name}.response", response))
    if not isinstance(steps, list):
        fields.refuse(f"{name}.steps", f"{kind_of(steps)}: give a list of texts")
    texts = [fields.checked_text(f"{name}.steps[{i}]", text) for i, text in enumerate(steps)]
    try:
        if response is None:
            joined, places = join_steps(texts)
            return Rollout(problem=problem, response=joined, steps=places)
        text = fields.checked_text(f"{name}.response", response)
        if text and not texts:
            fields.refuse(f"{name}.steps", NO_STEPS)
        return Rollout(problem=problem, response=text, steps=locate_steps(text, texts))
    except StepError as error:
        fields.refuse(f"{name}.steps", str(error))


@dataclass(frozen=True)
class Answers:
    """The final answers of the candidates of one problem."""

    texts: tuple[str | None, ...]
    """As they are stated, or None where none is."""

    votes: tuple[int | None, ...]
    """Equal numbers for equal answers, from 0 on in order of appearance."""

    right: tuple[bool | None, ...]
    """Whether each is right; None where there is no reference answer, or it cannot be read."""


async def compare_answers(row: ProblemRow, check: OutcomeCheck) -> Answers:
    """Which answers are equal, and which are right.

    Args:
        row: the problem with its reference answer.
        check: says whether an answer equals another one: each new answer is held against the
            first of every kind there is so far.
    """
    texts = tuple(final_answer(rollout.response) for rollout in row.rollouts)
    kinds: list[str] = []
    votes: list[int | None] = []
    for text in texts:
        votes.append(None if text is None else await _kind(text, kinds, check))
    reference = row.problem.reference_answer
    right: list[bool | None] = []
    for rollout in row.rollouts:
        outcome = await check.acheck(rollout.response, reference)
        right.append(None if outcome.value is None else outcome.right)
    return Answers(texts, tuple(votes), tuple(right))


def _as_share(text: str) -> str:
    """A percentage as the fraction that it is: 50% may be meant by 50 and by 0.5, but not both."""
    number = percentage(text)
    return text if number is None else f"\\frac{{{number}}}{{100}}"


async def _kind(text: str, kinds: list[str], check: OutcomeCheck) -> int:
    """The number of the kind that an answer belongs to; a new one is appended."""
    text = text.rstrip(". ")  # the end of the sentence is no part of the answer
    for number, known in enumerate(kinds):
        if same_text(text, known):
            return number
    for number, known in enumerate(kinds):
        if (await check.acheck(f"\\boxed{{{_as_share(text)}}}", _as_share(known))).right:
            return number
    kinds.append(text)
    return len(kinds) - 1
