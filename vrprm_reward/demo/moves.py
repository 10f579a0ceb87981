"""Moves: the steps a solution is planned in, their truth, and how they are put into words."""

import random
from dataclasses import dataclass

from vrprm_reward.demo.scene import COLOURS, COLUMNS, PLACES, SHAPES, Kind, Scene, Thing

CELL_NAMES = "abcdefghi"
"""Names of the cells in notes, in reading order."""


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


@dataclass(frozen=True)
class Truth:
    """The true version of a move."""

    value: str
    claim: str
    notes: str


def truth_of(move: Move, scene: Scene, truth: dict[str, str]) -> Truth:
    """What a move yields when everything before it is right, and what a careful reader notes."""
    told = {name: truth[name] for name in move.uses}
    value = value_of(move, scene, told)
    claim = claim_of(move, told, value)
    notes = claim
    if move.kind == "count":
        assert move.of is not None
        notes = f"{tally(scene, move.of, move.row)} so {value}"
    elif move.kind == "find":
        notes = _line_of(move, scene, told, value)
    return Truth(value, claim, notes)


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


def value_of(move: Move, scene: Scene, told: dict[str, str]) -> str:
    """The value a move yields when it builds on `told`."""
    if move.kind == "count":
        assert move.of is not None
        return str(scene.count(move.of, move.row))
    if move.kind == "find":
        if move.side:
            return neighbour(scene, told[move.uses[0]], move.side)
        if move.place:
            return str(scene.at(move.place) or "nothing")
        assert move.of is not None
        return scene.places(move.of)[0]
    if move.kind == "arithmetic":
        return str(calculate(move, told))
    if move.kind == "compare":
        first, second = (int(told[name]) for name in move.uses)
        return "the same" if first == second else move.words[0 if first > second else 1]
    if move.kind == "final":
        return told[move.uses[0]]
    return ""


def calculate(move: Move, told: dict[str, str]) -> int:
    """The result of an `arithmetic` move on the numbers in `told`."""
    numbers = [int(told[name]) for name in move.uses]
    if move.constant is not None:
        numbers.append(move.constant)
    if move.operator == "+":
        return sum(numbers)
    if move.operator == "-":
        return numbers[0] - numbers[1]
    return numbers[0] * numbers[1]


def neighbour(scene: Scene, place: str, side: str) -> str:
    """What is to the left or right of a place, or "nothing"."""
    beside = _beside(place, side)
    return str((scene.at(beside) if beside else None) or "nothing")


def _beside(place: str, side: str) -> str | None:
    """The place to the left or right of a place, within the picture."""
    row, column = place.split()
    index = COLUMNS.index(column) + (1 if side == "right" else -1)
    return f"{row} {COLUMNS[index]}" if 0 <= index < 3 else None


def claim_of(move: Move, told: dict[str, str], value: str) -> str:
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


def other_number(value: str, rng: random.Random) -> str:
    """A wrong number one or two away, never negative."""
    offsets = [o for o in (-2, -1, 1, 2) if int(value) + o >= 0]
    return str(int(value) + rng.choice(offsets))


def other_value(move: Move, value: str, rng: random.Random) -> str:
    """A wrong value of the kind that the move yields."""
    if move.kind in ("count", "arithmetic"):
        return other_number(value, rng)
    if move.kind == "compare":
        return rng.choice([w for w in (*move.words, "the same") if w != value])
    if value in PLACES:
        return rng.choice([place for place in PLACES if place != value])
    things = [str(Thing(colour, shape)) for colour in COLOURS for shape in SHAPES]
    return rng.choice([thing for thing in things if thing != value])


def words_of(move: Move, told: dict[str, str], value: str, rng: random.Random, redo: bool) -> str:
    """A sentence for a move; `redo` opens it as a correction of an earlier mistake."""
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
        return rng.choice(move.words).format(claim=claim_of(move, told, value))
    if move.kind == "compare":
        first, second = (told[name] for name in move.uses)
        if value == "the same":
            these, those = move.words
            return f"Comparing {first} and {second}, there are as many {these} as {those}."
        return f"Comparing {first} and {second}, there are more {value}."
    return rng.choice((f"The answer is {value}.", f"So the answer is {value}."))


def _article(thing: str) -> str:
    return thing if thing == "nothing" else f"a {thing}"
