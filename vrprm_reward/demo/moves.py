"""Moves: the steps a solution is planned in, their truth, and how they are put into words."""

import random
from dataclasses import dataclass

from vrprm_reward.demo.scene import COLOURS, COLUMNS, PLACES, SHAPES, Kind, Scene, Thing


@dataclass(frozen=True)
class Move:
    """One step of a plan.

    `name` is the value it sets; `uses` are the values it builds on. `kind` is one of `plan`,
    `count`, `find`, `beside`, `sum`, `compare`, `final`.
    """

    kind: str
    name: str = ""
    uses: tuple[str, ...] = ()
    of: tuple[Kind, ...] = ()
    """What is counted, or what the numbers of a sum are numbers of, the last ones first."""

    place: str | None = None
    side: str | None = None
    operator: str = ""
    constant: int | None = None
    words: tuple[str, ...] = ()


class OutsideError(ValueError):
    """A step looks beyond the edge of the picture, or at a number the world has no word for."""


NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
"""Numbers are written in words: one token each, right behind the name they belong to."""


def spelt(value: str) -> str:
    """A number in words; any other value as it is. Raises `OutsideError`."""
    if not value.lstrip("-").isdigit():
        return value
    if not 0 <= int(value) < len(NUMBERS):
        raise OutsideError
    return NUMBERS[int(value)]


def value_of(move: Move, scene: Scene, told: dict[str, str]) -> str:
    """The value a move yields when it builds on `told`. Raises `OutsideError`."""
    if move.kind == "count":
        return str(scene.count(move.of[0]))
    if move.kind == "find":
        if move.place:
            return str(scene.at(move.place) or "nothing")
        return scene.places(move.of[0])[0]
    if move.kind == "beside":
        place = beside(told[move.uses[0]], move.side or "")
        if place is None:
            raise OutsideError
        return f"{place} {scene.at(place) or 'nothing'}"
    if move.kind == "sum":
        return str(calculate(move, told))
    if move.kind == "compare":
        first, second = (int(told[name]) for name in move.uses)
        return "the same" if first == second else move.words[0 if first > second else 1]
    if move.kind == "final":
        value = told[move.uses[0]]
        return value.split(" ", 2)[2] if move.words == ("thing",) else value
    return ""


def calculate(move: Move, told: dict[str, str]) -> int:
    """The result of a `sum` on the numbers in `told`."""
    numbers = [int(told[name]) for name in move.uses]
    if move.constant is not None:
        numbers.append(move.constant)
    first, second = numbers
    return {"plus": first + second, "minus": first - second, "times": first * second}[move.operator]


def beside(place: str, side: str) -> str | None:
    """The place to the left or right of a place, within the picture."""
    row, column = place.split()
    index = COLUMNS.index(column) + (1 if side == "right" else -1)
    return f"{row} {COLUMNS[index]}" if 0 <= index < 3 else None


def claim_of(move: Move, told: dict[str, str], value: str) -> tuple[str, ...]:
    """All that a step asserts: what it builds on, and its value."""
    return (*(told[name] for name in move.uses), value)


def other_number(value: str, rng: random.Random) -> str:
    """A wrong number one or two away, never negative unless the value is."""
    offsets = [o for o in (-2, -1, 1, 2) if int(value) + o >= 0]
    return str(int(value) + rng.choice(offsets or (1, 2)))


def other_value(move: Move, value: str, rng: random.Random) -> str:
    """A wrong value of the kind that the move yields."""
    if move.kind in ("count", "sum"):
        return other_number(value, rng)
    if move.kind == "compare":
        return rng.choice([w for w in (*move.words, "the same") if w != value])
    if value in PLACES:
        return rng.choice([place for place in PLACES if place != value])
    things = [str(Thing(colour, shape)) for colour in COLOURS for shape in SHAPES]
    if move.kind == "beside":
        row, column, thing = value.split(" ", 2)
        return f"{row} {column} {rng.choice([t for t in things if t != thing])}"
    return rng.choice([thing for thing in things if thing != value])


def words_of(move: Move, told: dict[str, str], value: str, rng: random.Random, redo: bool) -> str:
    """A sentence for a move; `redo` opens it as a correction of an earlier mistake.

    Raises `OutsideError`.
    """
    told = {name: spelt(text) for name, text in told.items()}
    text = _plain_words(move, told, spelt(value), rng)
    if not redo:
        return text
    opening = rng.choice(("Wait, looking again: ", "Let me correct that: ", "No, I was wrong: "))
    return opening + (text if text.startswith("I ") else text[0].lower() + text[1:])


def _plain_words(move: Move, told: dict[str, str], value: str, rng: random.Random) -> str:
    if move.kind == "plan":
        return rng.choice(move.words)
    if move.kind == "count":
        noun = move.of[0].noun()
        return rng.choice(
            (f"The number of {noun} is {value}.", f"Counting the {noun} gives {value}.")
        )
    if move.kind == "find":
        if not move.place:
            return f"The {move.of[0].noun(1)} is at the {value}."
        thing = article(value)
        return rng.choice((f"At the {move.place} is {thing}.", f"The {move.place} shows {thing}."))
    if move.kind == "beside":
        row, column, thing = value.split(" ", 2)
        return f"Directly {move.side} of it, at the {row} {column}, is {article(thing)}."
    if move.kind == "sum":
        numbers = [told[name] for name in move.uses]
        if move.constant is not None:
            numbers.append(spelt(str(move.constant)))
        doing = {"plus": "Adding", "minus": "Subtracting", "times": "Multiplying by"}[move.operator]
        with_what = numbers[1] if move.constant is not None else f"the {move.of[-1].noun()}"
        equation = f"{numbers[0]} {move.operator} {numbers[1]} makes {value}"
        return f"{doing} {with_what}: {equation}."
    if move.kind == "compare":
        (these, those), (first, second) = move.words, (told[name] for name in move.uses)
        result = f"as many {these} as {those}" if value == "the same" else f"more {value}"
        return f"With {these} {first} and {those} {second}, there are {result}."
    return rng.choice((f"The answer is {value}.", f"So the answer is {value}."))


def article(thing: str) -> str:
    """A thing with its article; "nothing" has none."""
    return thing if thing == "nothing" else f"a {thing}"
