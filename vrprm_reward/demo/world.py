"""The demo world: questions about scenes, and solutions in steps with planted, labelled errors.

A solution is a chain of *moves*. Each move has a true version, worked out from the scene, and is
written down by an imagined policy that may get it wrong. The label of a step follows VRPRM's
rule: 1 when what the step says is true and it builds on nothing wrong, 0 otherwise; an earlier
mistake stops counting once a step has put it right.
"""

import random
from dataclasses import dataclass, field

from PIL import Image

from vrprm_reward.demo.moves import (
    Move,
    OutsideError,
    claim_of,
    other_number,
    other_value,
    spelt,
    value_of,
    words_of,
)
from vrprm_reward.demo.questions import LARGEST_NUMBER, Question, random_question
from vrprm_reward.demo.scene import COLOURS, KINDS, PLACES, Kind, Scene, draw

ERRORS = {"misread": 3, "slip": 2, "carry": 2, "unsupported": 1}
"""Kinds of planted errors with how often each is tried."""


@dataclass(frozen=True)
class WorldStep:
    """One written step with its true label."""

    text: str
    label: int


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
class _Writer:
    """Writes a chain of moves down, with the values an erring policy believes."""

    scene: Scene
    rng: random.Random
    truth: dict[str, str] = field(default_factory=dict)
    belief: dict[str, str] = field(default_factory=dict)
    steps: list[WorldStep] = field(default_factory=list)

    def write(self, move: Move, error: str | None = None, redo: bool = False) -> None:
        """Append the step for `move`; `error` plants a mistake, `redo` corrects an earlier one."""
        true_claim = claim_of(move, self.truth, value_of(move, self.scene, self.truth))
        told = {name: self.truth[name] if redo else self.belief[name] for name in move.uses}
        if error == "carry":
            name = self.rng.choice(move.uses)
            told[name] = other_number(told[name], self.rng)
        value = value_of(move, self.scene, told)
        if error in ("misread", "slip"):
            value = other_value(move, value, self.rng)
        if move.name:
            self.truth[move.name] = true_claim[-1]
            self.belief[move.name] = value
        text = words_of(move, told, value, self.rng, redo)
        self.steps.append(WorldStep(text, int(claim_of(move, told, value) == true_claim)))

    def unsupported(self) -> None:
        """Append a step that claims what no picture of this world can show."""
        noun = Kind(colour=self.rng.choice(list(COLOURS))).noun()
        text = self.rng.choice(
            (
                f"The {noun} are made of glass.",
                f"The {noun} are heavier than the others.",
                f"The {noun} were drawn before the others.",
                "The picture was painted at night.",
                "A dog is standing behind the shapes.",
            )
        )
        self.steps.append(WorldStep(text, 0))


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
    writer = _Writer(question.scene, rng)
    errors: list[str] = []
    wanted = rng.choices(list(ERRORS), list(ERRORS.values()))[0]
    error = wanted if rng.random() < error_rate else None
    spots = [i for i, move in enumerate(question.moves) if error in _possible_errors(move)]
    if error is not None and not spots:
        return None
    spot = rng.choice(spots) if error else -1
    recover = error in ("misread", "slip", "carry") and rng.random() < 0.25
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
        if recover:
            writer.write(move, redo=True)
            errors.append("recovery")
    return _checked(question, writer, errors)


def _checked(question: Question, writer: _Writer, errors: list[str]) -> Example | None:
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
    return ()


def random_example(rng: random.Random, error_rate: float = 0.8) -> Example:
    """A new problem with one candidate solution."""
    return solve(random_question(rng), rng, error_rate)


def random_claim(numbers: dict[Kind, int], rng: random.Random) -> tuple[WorldStep, Move]:
    """A step about how many there are of some kinds, true or false with equal chances."""
    while True:
        first, second = rng.sample(list(numbers), 2)
        told = {"a": str(numbers[first]), "b": str(numbers[second])}
        kind = rng.choices(("count", "sum", "compare"), (7, 2, 1))[0]
        words = (first.noun(), second.noun())
        operator = rng.choice(("plus", "plus", "minus"))
        uses = () if kind == "count" else ("a", "b")
        of = {"count": (first,), "sum": (second,), "compare": (first, second)}[kind]
        move = Move(kind, "n", uses=uses, of=of, operator=operator, words=words)
        value = told["a"] if kind == "count" else value_of(move, _NO_SCENE, told)
        true = claim_of(move, told, value)
        if rng.random() < 0.5:
            if uses and rng.random() < 0.5:
                told = told | {"b": other_number(told["b"], rng)}
                value = value_of(move, _NO_SCENE, told)
            else:
                value = other_value(move, value, rng)
        try:
            text = words_of(move, told, value, rng, redo=False)
        except OutsideError:
            continue
        return WorldStep(text, int(claim_of(move, told, value) == true)), move


_NO_SCENE = Scene((None,) * 9)


def notes(scene: Scene) -> str:
    """What a careful reader notes: what is in every cell, then how many there are of each kind."""
    cells = zip(PLACES, scene.cells, strict=True)
    lines = [f"{place} {thing or 'nothing'}" for place, thing in cells]
    return "\n".join(lines) + "\n" + "".join(counts(scene))


def counts(scene: Scene) -> list[str]:
    """The number of things of every colour and every shape: " reds two"."""
    return [count_note(kind, scene.count(kind)) for kind in KINDS]


def count_note(kind: Kind, number: int) -> str:
    """Plurals keep these names apart from the ones in the lines about cells."""
    return f" {kind.colour or kind.shape}s {spelt(str(number))}"
