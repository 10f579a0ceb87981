"""The demo world: questions about scenes, and solutions in steps with planted, labelled errors.

A solution is a chain of *moves*. Each move has a true version, worked out from the scene, and is
written down by an imagined policy that may get it wrong. The label of a step follows VRPRM's
rule: 1 when what the step says is true and it builds on nothing wrong, 0 otherwise; an earlier
mistake stops counting once a step has put it right.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

from vrprm_reward.demo.moves import (
    NOTHING,
    Move,
    OutsideError,
    claim_of,
    other_number,
    other_value,
    spelt,
    value_of,
)
from vrprm_reward.demo.questions import LARGEST_NUMBER, Question, random_question
from vrprm_reward.demo.scene import KINDS, PLACES, Scene, draw
from vrprm_reward.demo.wording import (
    Basis,
    Claim,
    Sentence,
    Truth,
    Version,
    holds,
    is_true,
    plain,
    sentence_of,
    unsupported_sentence,
)

ERRORS = {"misread": 3, "slip": 2, "carry": 2, "unsupported": 1}
"""Kinds of planted errors with how often each is tried."""


@dataclass(frozen=True)
class WorldStep:
    """One written step with its true label."""

    sentence: Sentence

    written: str | None = None
    """Its text, where more is written than the sentence."""

    @property
    def text(self) -> str:
        """The step as the policy writes it."""
        return plain(self.sentence) if self.written is None else self.written

    @property
    def label(self) -> int:
        """1 when nothing in it is wrong, 0 otherwise."""
        return int(is_true(self.sentence))


@dataclass(frozen=True)
class Example:
    """A problem of the world with one candidate solution."""

    question: str
    answer: str
    question_type: str
    scene: Scene
    image: Image.Image
    steps: tuple[WorldStep, ...]
    errors: tuple[str, ...]
    """Kinds of the planted errors; `recovery` when one was put right by a later step."""

    @property
    def labels(self) -> tuple[int, ...]:
        """1 or 0 for every step."""
        return tuple(step.label for step in self.steps)


@dataclass
class Writer:
    """Writes a chain of moves down, with the values an erring policy believes."""

    scene: Scene
    rng: random.Random
    truth: dict[str, str] = field(default_factory=dict)
    belief: dict[str, str] = field(default_factory=dict)
    steps: list[WorldStep] = field(default_factory=list)

    def write(self, move: Move, error: str | None = None, redo: bool = False) -> None:
        """Append the step for `move`; `error` plants a mistake, `redo` corrects an earlier one."""
        built_on = {name: self.truth[name] for name in move.uses}
        true = Version(built_on, value_of(move, self.scene, built_on))
        told = dict(built_on) if redo else {name: self.belief[name] for name in move.uses}
        if error == "carry":
            name = self.rng.choice(move.uses)
            told[name] = other_number(told[name], self.rng)
        value = value_of(move, self.scene, told)
        if error in ("misread", "slip"):
            value = other_value(move, value, self.rng)
        if move.name:
            self.truth[move.name], self.belief[move.name] = true.value, value
        sentence = sentence_of(move, Version(told, value), true, self.scene, self.rng, redo)
        if is_true(sentence) != (claim_of(move, told, value) == claim_of(move, **vars(true))):
            raise OutsideError
        self.steps.append(WorldStep(sentence))

    def unsupported(self) -> None:
        """Append a step that claims what no picture of this world can show."""
        self.steps.append(WorldStep(unsupported_sentence(self.rng)))


def solve(question: Question, rng: random.Random, error_rate: float = 0.8) -> Example:
    """Write a candidate solution, wrong somewhere with probability `error_rate`."""
    while True:
        try:
            example = _attempt(question, rng, error_rate)
        except OutsideError:
            continue
        if example is not None:
            return example


def _attempt(question: Question, rng: random.Random, error_rate: float) -> Example | None:
    writer = Writer(question.scene, rng)
    errors: list[str] = []
    wanted = rng.choices(list(ERRORS), list(ERRORS.values()))[0]
    error = wanted if rng.random() < error_rate else None
    spots = [i for i, move in enumerate(question.moves) if error in _possible_errors(move)]
    if error is not None and not spots:
        return None
    spot = rng.choice(spots) if error else -1
    recover = error != "unsupported" and rng.random() < 0.25
    for index, move in enumerate(question.moves):
        if index != spot or error is None:
            writer.write(move)
            continue
        errors.append(error)
        if error == "unsupported":
            writer.unsupported()
            writer.write(move)
            continue
        writer.write(move, error)
        if writer.belief[move.name] == writer.truth[move.name]:
            return None
        if recover and _stands_alone(move):
            writer.write(move, redo=True)
            errors.append("recovery")
    return _checked(question, writer, errors)


def _checked(question: Question, writer: Writer, errors: list[str]) -> Example | None:
    """The example, unless a number left its range or a wrong value came out right by accident."""
    wrong = {name for name, value in writer.belief.items() if value != writer.truth[name]}
    for move in question.moves:
        if wrong & set(move.uses) and move.name not in wrong:
            return None
    numbers = [int(v) for v in writer.belief.values() if v.lstrip("-").isdigit()]
    if not all(0 <= n <= LARGEST_NUMBER + 4 for n in numbers):
        return None
    return Example(
        question=question.text,
        answer=question.answer,
        question_type=question.kind,
        scene=question.scene,
        image=draw(question.scene, writer.rng),
        steps=tuple(writer.steps),
        errors=tuple(errors),
    )


def _possible_errors(move: Move) -> tuple[str, ...]:
    if move.kind in ("count", "find"):
        return ("misread", "unsupported")
    if move.kind == "beside":
        return ("misread",)
    if move.kind in ("sum", "compare"):
        return ("slip", "carry")
    return ("slip",) if move.kind == "final" else ()


def _stands_alone(move: Move) -> bool:
    """Whether a step can be written again without the one before it."""
    if move.kind in ("count", "find", "compare"):
        return True
    return move.kind == "sum" and len(move.of) == len(move.uses)


def random_example(rng: random.Random, error_rate: float = 0.8) -> Example:
    """A new problem with one candidate solution."""
    return solve(random_question(rng), rng, error_rate)


class Note(NamedTuple):
    """A piece of what a careful reader writes, and what one must know to write it."""

    text: str
    about: str
    """`place`, `colour`, `shape` or `count` in notes; `step`, `claim`, `truth`, `tick`, `number`
    or `verdict` in checks."""


def notes(scene: Scene) -> list[Note]:
    """What a careful reader notes: what is in every cell, then the numbers of all kinds.

    What the reader finds is in capitals, as it is in the checks, so that it is only to be copied;
    what it is found by is written as steps write it, which makes it easy to look up.
    """
    found = [Note("Cells:", "place")]
    for place, thing in zip(PLACES, scene.cells, strict=True):
        found.append(Note(f"\n {place}", "place"))
        if thing is None:
            found.append(Note(f" {NOTHING.upper()}", "colour"))
        else:
            found.append(Note(f" {thing.colour.upper()}", "colour"))
            found.append(Note(f" {thing.shape.upper()}", "shape"))
    return [*found, Note("\n", "place"), *counts(scene)]


def counts(scene: Scene) -> list[Note]:
    """The number of things of every colour and every shape: " red TWO"."""
    found = []
    for kind in KINDS:
        found.append(Note(f" {kind.noun()}", "place"))
        found.append(Note(f" {spelt(str(scene.count(kind))).upper()}", "count"))
    return found


def checks(steps: Sequence[WorldStep], first_number: int) -> list[Note]:
    """The steps again, with what is known where it is wanted, and every claim ticked off.

    The truth stands before the claim that it is held against, so that no claim can suggest it.
    """
    found: list[Note] = []
    for number, step in enumerate(steps, first_number):
        found += [Note("\n", "step"), Note(str(number), "number"), Note(": ", "step")]
        for part in step.sentence:
            found += _checked_part(part)
        verdict = Note(" right" if step.label else " wrong", "verdict")
        found += [Note(" ", "step"), Note(str(number), "number"), verdict]
    return found


def _checked_part(part: str | Claim | Truth | Basis) -> list[Note]:
    if isinstance(part, str):
        return [Note(part, "step")]
    if isinstance(part, Truth):
        return [Note(f" {word.upper()}", "truth") for word in part.words.split()]
    return [Note(f" {part.word}", "claim"), Note(" yes" if holds(part) else " no", "tick")]


def written(notes: Sequence[Note]) -> str:
    """Notes as text."""
    return "".join(note.text for note in notes)
