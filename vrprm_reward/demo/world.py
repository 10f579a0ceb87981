"""The demo world: questions about scenes, and solutions in steps with planted, labelled errors.

A solution is a chain of *moves*. Each move has a true version, worked out from the scene, and is
written down by an imagined policy that may get it wrong. The label of a step follows VRPRM's
rule: 1 when what the step says is true and it builds on nothing wrong, 0 otherwise; an earlier
mistake stops counting once a step has put it right.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from vrprm_reward.demo.scene import (
    COLOURS,
    COLUMNS,
    PLACES,
    ROWS,
    SHAPES,
    Kind,
    Scene,
    Thing,
    draw,
    random_scene,
)

ERRORS = {"misread": 3, "slip": 2, "carry": 2, "unsupported": 1}
"""Kinds of planted errors with how often each is tried."""

QUESTION_TYPES = ("count", "compare", "locate", "arithmetic")
LARGEST_NUMBER = 40
CELL_NAMES = "abcdefghi"
"""Names of the cells in notes, in reading order."""


@dataclass(frozen=True)
class WorldStep:
    """One written step with its true label and the check that a careful reader would note."""

    text: str
    label: int
    check: str


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


@dataclass(frozen=True)
class Question:
    """A question about a scene with the moves that answer it."""

    text: str
    kind: str
    scene: Scene
    moves: tuple["Move", ...]
    answer: str


@dataclass(frozen=True)
class Move:
    """One step of a plan.

    `name` is the value it sets; `uses` are the values it builds on. `kind` is one of `plan`,
    `count`, `find`, `arithmetic`, `compare`, `final`.
    """

    kind: str
    name: str = ""
    uses: tuple[str, ...] = ()
    of: Kind | None = None
    row: str | None = None
    place: str | None = None
    side: str | None = None
    operator: str = ""
    constant: int | None = None
    words: tuple[str, ...] = ()


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
        texts = _truth_of(move, self.scene, self.truth)
        if move.name:
            self.truth[move.name] = texts.value
        told = {name: self.truth[name] if redo else self.belief[name] for name in move.uses}
        if error == "carry":
            name = self.rng.choice(move.uses)
            told[name] = _other_number(told[name], self.rng)
        value = _value_of(move, self.scene, told)
        if error in ("misread", "slip"):
            value = _other_value(move, value, self.rng)
        if move.name:
            self.belief[move.name] = value
        text = _words(move, told, value, self.rng, redo)
        right = _claim(move, told, value) == texts.claim
        verdict = "holds" if right else "fails"
        self.steps.append(WorldStep(text, int(right), f"{text} {texts.notes}: {verdict}"))

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
        self.steps.append(WorldStep(text, 0, f"{text} not visible: fails"))


@dataclass(frozen=True)
class _Truth:
    value: str
    claim: str
    notes: str


def _truth_of(move: Move, scene: Scene, truth: dict[str, str]) -> _Truth:
    told = {name: truth[name] for name in move.uses}
    value = _value_of(move, scene, told)
    claim = _claim(move, told, value)
    notes = claim
    if move.kind == "count":
        assert move.of is not None
        notes = f"{tally(scene, move.of, move.row)} so {value}"
    elif move.kind == "find":
        notes = _line_of(move, scene, told, value)
    return _Truth(value, claim, notes)


def tally(scene: Scene, kind: Kind, row: str | None = None) -> str:
    """A running count, cell by cell: "a0b1c1..." says that the second cell holds the first."""
    found, count = "", 0
    for name, place, thing in zip(CELL_NAMES, PLACES, scene.cells, strict=True):
        if row is None or place.startswith(row):
            count += kind.fits(thing)
            found += f"{name}{count}"
    return found


def cell_line(scene: Scene, place: str) -> str:
    """What is in a cell, with the cell's name and place."""
    return f"{CELL_NAMES[PLACES.index(place)]} {place} {scene.at(place) or 'nothing'}"


def _line_of(move: Move, scene: Scene, told: dict[str, str], value: str) -> str:
    """The line about the cell that answers a `find`, or that there is no such cell."""
    if move.place:
        return cell_line(scene, move.place)
    if not move.side:
        return cell_line(scene, value)
    place = _beside(told[move.uses[0]], move.side)
    return cell_line(scene, place) if place else "nothing"


def _value_of(move: Move, scene: Scene, told: dict[str, str]) -> str:
    """The value a move yields when it builds on `told`."""
    if move.kind == "count":
        assert move.of is not None
        return str(scene.count(move.of, move.row))
    if move.kind == "find":
        if move.side:
            return _neighbour(scene, told[move.uses[0]], move.side)
        if move.place:
            return str(scene.at(move.place) or "nothing")
        assert move.of is not None
        return scene.places(move.of)[0]
    if move.kind == "arithmetic":
        return str(_calculate(move, told))
    if move.kind == "compare":
        first, second = (int(told[name]) for name in move.uses)
        return "the same" if first == second else move.words[0 if first > second else 1]
    if move.kind == "final":
        return told[move.uses[0]]
    return ""


def _calculate(move: Move, told: dict[str, str]) -> int:
    numbers = [int(told[name]) for name in move.uses]
    if move.constant is not None:
        numbers.append(move.constant)
    if move.operator == "+":
        return sum(numbers)
    if move.operator == "-":
        return numbers[0] - numbers[1]
    return numbers[0] * numbers[1]


def _neighbour(scene: Scene, place: str, side: str) -> str:
    neighbour = _beside(place, side)
    return str((scene.at(neighbour) if neighbour else None) or "nothing")


def _beside(place: str, side: str) -> str | None:
    """The place to the left or right of a place, within the picture."""
    row, column = place.split()
    index = COLUMNS.index(column) + (1 if side == "right" else -1)
    return f"{row} {COLUMNS[index]}" if 0 <= index < 3 else None


def _claim(move: Move, told: dict[str, str], value: str) -> str:
    """What a step asserts, in the short form used in notes."""
    if move.kind == "arithmetic":
        numbers = [told[name] for name in move.uses]
        if move.constant is not None:
            numbers.append(str(move.constant))
        return f" {move.operator} ".join(numbers) + f" = {value}"
    if move.kind == "compare":
        return f"{told[move.uses[0]]} and {told[move.uses[1]]}, {value}"
    if move.kind == "plan":
        return "a plan"
    return value


def _other_number(value: str, rng: random.Random) -> str:
    offsets = [o for o in (-2, -1, 1, 2) if int(value) + o >= 0]
    return str(int(value) + rng.choice(offsets))


def _other_value(move: Move, value: str, rng: random.Random) -> str:
    if move.kind in ("count", "arithmetic"):
        return _other_number(value, rng)
    if move.kind == "compare":
        return rng.choice([w for w in (*move.words, "the same") if w != value])
    if value in PLACES:
        return rng.choice([place for place in PLACES if place != value])
    things = [str(Thing(colour, shape)) for colour in COLOURS for shape in SHAPES]
    return rng.choice([thing for thing in things if thing != value])


def _words(move: Move, told: dict[str, str], value: str, rng: random.Random, redo: bool) -> str:
    text = _plain_words(move, told, value, rng)
    if not redo:
        return text
    opening = rng.choice(("Wait, looking again: ", "Let me correct that: ", "No, I was wrong: "))
    return opening + text[0].lower() + text[1:] if not text.startswith("I ") else opening + text


def _plain_words(move: Move, told: dict[str, str], value: str, rng: random.Random) -> str:
    if move.kind == "plan":
        return rng.choice(move.words)
    if move.kind == "count":
        assert move.of is not None
        number = int(value)
        noun, verb = move.of.noun(number), "is" if number == 1 else "are"
        if move.row:
            return rng.choice(
                (
                    f"In the {move.row} row there {verb} {number} {noun}.",
                    f"The {move.row} row has {number} {noun}.",
                )
            )
        return rng.choice(
            (
                f"There {verb} {number} {noun} in the picture.",
                f"I count {number} {noun}.",
                f"The picture shows {number} {noun}.",
            )
        )
    if move.kind == "find":
        if move.side:
            return f"Directly {move.side} of it is {_article(value)}."
        if move.place:
            return rng.choice(
                (
                    f"At the {move.place} is {_article(value)}.",
                    f"The {move.place} shows {_article(value)}.",
                )
            )
        assert move.of is not None
        return f"The {move.of.noun(1)} is at the {value}."
    if move.kind == "arithmetic":
        return rng.choice(move.words).format(claim=_claim(move, told, value))
    if move.kind == "compare":
        first, second = (told[name] for name in move.uses)
        if value == "the same":
            these, those = move.words
            return f"Comparing {first} and {second}, there are as many {these} as {those}."
        return f"Comparing {first} and {second}, there are more {value}."
    return rng.choice((f"The answer is {value}.", f"So the answer is {value}."))


def _article(thing: str) -> str:
    return thing if thing == "nothing" else f"a {thing}"


def random_kind(rng: random.Random) -> Kind:
    """A colour, a shape, or both."""
    colour = rng.choice(list(COLOURS)) if rng.random() < 0.6 else None
    shape = rng.choice(SHAPES) if colour is None or rng.random() < 0.3 else None
    return Kind(colour, shape)


def _two_kinds(rng: random.Random) -> tuple[Kind, Kind]:
    first = second = random_kind(rng)
    while second == first:
        second = random_kind(rng)
    return first, second


def _plan(rng: random.Random, *texts: str) -> tuple[Move, ...]:
    return (Move("plan", words=texts),) if rng.random() < 0.25 else ()


def ask(rng: random.Random, scene: Scene, kind: str) -> Question | None:
    """A question of a type about a scene with its plan; None when the scene does not allow it."""
    return {"count": _ask_count, "compare": _ask_compare, "locate": _ask_locate}.get(
        kind, _ask_arithmetic
    )(rng, scene)


def _ask_count(rng: random.Random, scene: Scene) -> Question:
    of = random_kind(rng)
    text = f"How many {of.noun()} are there?"
    moves: tuple[Move, ...]
    if rng.random() < 0.5:
        moves = (*_plan(rng, f"I look for {of.noun()}."), Move("count", "n", of=of))
    else:
        rows = tuple(Move("count", row, of=of, row=row) for row in ROWS)
        words = ("Together that is {claim}.", "Adding the rows gives {claim}.")
        total = Move("arithmetic", "n", uses=ROWS, operator="+", words=words)
        moves = (*_plan(rng, "I go through the rows one by one."), *rows, total)
    moves = (*moves, Move("final", "answer", uses=("n",)))
    return Question(text, "count", scene, moves, str(scene.count(of)))


def _ask_compare(rng: random.Random, scene: Scene) -> Question:
    first, second = _two_kinds(rng)
    words = (first.noun(), second.noun())
    moves = (
        *_plan(rng, f"I compare the {words[0]} with the {words[1]}."),
        Move("count", "a", of=first),
        Move("count", "b", of=second),
        Move("compare", "c", uses=("a", "b"), words=words),
        Move("final", "answer", uses=("c",)),
    )
    a, b = scene.count(first), scene.count(second)
    answer = "the same" if a == b else words[0 if a > b else 1]
    text = f"Are there more {words[0]} or more {words[1]}?"
    return Question(text, "compare", scene, moves, answer)


def _ask_locate(rng: random.Random, scene: Scene) -> Question | None:
    things = [thing for thing in scene.cells if thing is not None]
    unique = sorted({thing for thing in things if things.count(thing) == 1}, key=str)
    final = Move("final", "answer", uses=("x",))
    variant = rng.choice(("what", "where", "beside"))
    if variant == "what" or not unique:
        place = rng.choice(PLACES)
        moves = (*_plan(rng, f"I look at the {place}."), Move("find", "x", place=place), final)
        return Question(
            f"What is at the {place}?", "locate", scene, moves, str(scene.at(place) or "nothing")
        )
    thing = rng.choice(unique)
    kind = Kind(thing.colour, thing.shape)
    place = scene.places(kind)[0]
    plan = _plan(rng, f"I look for the {thing}.")
    if variant == "where":
        moves = (*plan, Move("find", "x", of=kind), final)
        return Question(f"Where is the {thing}?", "locate", scene, moves, place)
    sides = [s for s, edge in (("left", "left"), ("right", "right")) if not place.endswith(edge)]
    side = rng.choice(sides)
    beside = Move("find", "x", uses=("at",), side=side)
    moves = (*plan, Move("find", "at", of=kind), beside, final)
    text = f"What is directly {side} of the {thing}?"
    return Question(text, "locate", scene, moves, _neighbour(scene, place, side))


def _ask_arithmetic(rng: random.Random, scene: Scene) -> Question | None:
    first = random_kind(rng)
    phrases = [f"Take the number of {first.noun()}"]
    counts = [Move("count", "n0", of=first)]
    sums: list[Move] = []
    value, previous = scene.count(first), "n0"
    used = [first]
    for turn in range(1, rng.randint(2, 5) + 1):
        name = f"v{turn}"
        if rng.random() < 0.55 and len(counts) < 4:
            kind = random_kind(rng)
            if kind in used:
                return None
            used.append(kind)
            count = Move("count", f"n{turn}", of=kind)
            operator = rng.choice("+-")
            noun = kind.noun()
            words: tuple[str, ...]
            if operator == "+":
                words = (
                    f"Adding the {noun} gives {{claim}}.",
                    f"With the {noun} that makes {{claim}}.",
                )
                phrases.append(f"add the number of {noun}")
            else:
                words = (f"Taking away the {noun} leaves {{claim}}.",)
                phrases.append(f"subtract the number of {noun}")
            move = Move(
                "arithmetic", name, uses=(previous, count.name), operator=operator, words=words
            )
            value += scene.count(kind) * (1 if operator == "+" else -1)
            counts.append(count)
        else:
            operator = rng.choice("++-*")
            constant = rng.randint(2, 3) if operator == "*" else rng.randint(1, 9)
            verb = {"+": "add", "-": "subtract", "*": "multiply by"}[operator]
            phrases.append(f"{verb} {constant}")
            lead = {
                "+": f"Adding {constant} gives {{claim}}.",
                "-": f"Subtracting {constant} leaves {{claim}}.",
                "*": f"Multiplying by {constant} gives {{claim}}.",
            }[operator]
            move = Move(
                "arithmetic",
                name,
                uses=(previous,),
                operator=operator,
                constant=constant,
                words=(lead,),
            )
            value = _calculate(move, {previous: str(value)})
        if not 0 <= value <= LARGEST_NUMBER:
            return None
        sums.append(move)
        previous = name
    moves = _plan(rng, "First I count, then I calculate.")
    moves += tuple(counts) + tuple(sums) if rng.random() < 0.5 else _interleave(counts, sums)
    moves += (Move("final", "answer", uses=(previous,)),)
    text = ", then ".join(phrases) + ". What is the result?"
    return Question(text, "arithmetic", scene, moves, str(value))


def _interleave(counts: Sequence[Move], sums: Sequence[Move]) -> tuple[Move, ...]:
    """Each count just before the first sum that uses it."""
    waiting = {count.name: count for count in counts}
    moves: list[Move] = []
    for total in sums:
        moves += [waiting.pop(name) for name in total.uses if name in waiting]
        moves.append(total)
    return tuple(moves)


def random_question(rng: random.Random, kinds: Sequence[str] = QUESTION_TYPES) -> Question:
    """A question about a new scene; arithmetic is asked twice as often as each other type."""
    weights = [2 if kind == "arithmetic" else 1 for kind in kinds]
    while True:
        question = ask(rng, random_scene(rng), rng.choices(kinds, weights)[0])
        if question is not None:
            return question


def solve(question: Question, rng: random.Random, error_rate: float = 0.8) -> Example:
    """Write a candidate solution, wrong somewhere with probability `error_rate`."""
    while True:
        example = _attempt(question, rng, error_rate)
        if example is not None:
            return example


def _attempt(question: Question, rng: random.Random, error_rate: float) -> Example | None:
    writer = _Writer(question.scene, rng)
    moves, errors = question.moves, []
    error = (
        rng.choices(list(ERRORS), list(ERRORS.values()))[0] if rng.random() < error_rate else None
    )
    spots = [i for i, move in enumerate(moves) if error in _possible_errors(move)]
    if error is not None and not spots:
        return None
    spot = rng.choice(spots) if error else -1
    recover = error in ("misread", "slip", "carry") and rng.random() < 0.25
    for index, move in enumerate(moves):
        if index != spot:
            writer.write(move)
            continue
        assert error is not None
        errors.append(error)
        if error == "unsupported":
            writer.unsupported()
            writer.write(move)
            continue
        writer.write(move, error)
        if writer.steps[-1].label or (
            move.name and writer.belief[move.name] == writer.truth[move.name]
        ):
            return None
        if any(not _is_number_in_range(v) for v in writer.belief.values()):
            return None
        if recover:
            writer.write(move, redo=True)
            errors.append("recovery")
    return _checked(question, writer, errors)


def _checked(question: Question, writer: _Writer, errors: list[str]) -> Example | None:
    """The example, unless a wrong value came out right again by accident."""
    wrong = [name for name, value in writer.belief.items() if value != writer.truth[name]]
    tainted = set(wrong)
    for move in question.moves:
        if tainted & set(move.uses) and move.name and move.name not in tainted:
            return None
    if any(not _is_number_in_range(v) for v in writer.belief.values()):
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
    kinds: tuple[str, ...] = ("unsupported",)
    if move.kind in ("count", "find"):
        kinds += ("misread",)
    if move.kind in ("arithmetic", "compare"):
        kinds += ("slip", "carry")
    return kinds


def _is_number_in_range(value: str) -> bool:
    return not value.lstrip("-").isdigit() or 0 <= int(value) <= 2 * LARGEST_NUMBER


def random_example(rng: random.Random, error_rate: float = 0.8) -> Example:
    """A new problem with one candidate solution."""
    return solve(random_question(rng), rng, error_rate)


def picture_notes(scene: Scene) -> str:
    """What is in every cell, one line each."""
    return "\n".join(cell_line(scene, place) for place in PLACES)


def notes(example: Example) -> str:
    """What a careful reader thinks: what the picture shows, then a check of every step."""
    checks = "\n".join(f"Step {i}: {step.check}" for i, step in enumerate(example.steps))
    return f"{picture_notes(example.scene)}\n{checks}"
