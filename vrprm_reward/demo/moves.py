"""Moves: the steps a solution is planned in, their values, and wrong values for them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from vrprm_reward.demo.scene import COLOURS, PLACES, SHAPES, SIDE, Kind, Scene, Thing


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
    """What is counted, or what the last numbers of a sum are numbers of."""

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


NOTHING = "nothing"

RELATIONS = ("more", "fewer", "equal")
"""How many of one kind there are, compared with another."""


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
            return str(scene.at(move.place) or NOTHING)
        return scene.places(move.of[0])[0]
    if move.kind == "beside":
        place = beside(told[move.uses[0]], move.side or "")
        if place is None:
            raise OutsideError
        return f"{place} {scene.at(place) or NOTHING}"
    if move.kind == "sum":
        return str(calculate(move, told))
    if move.kind == "compare":
        first, second = (int(told[name]) for name in move.uses)
        return RELATIONS[0 if first > second else 1 if first < second else 2]
    if move.kind == "final":
        value = told[move.uses[0]]
        return value.split(" ", 1)[1] if move.side else value
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
    row, column = divmod(PLACES.index(place), SIDE)
    column += 1 if side == "right" else -1
    return PLACES[row * SIDE + column] if 0 <= column < SIDE else None


def claim_of(move: Move, told: dict[str, str], value: str) -> tuple[str, ...]:
    """All that a step asserts: what it builds on, and its value."""
    return (*(told[name] for name in move.uses), value)


def other_number(value: str, rng: random.Random) -> str:
    """A wrong number one or two away, never negative unless the value is."""
    offsets = [o for o in (-2, -1, 1, 2) if int(value) + o >= 0]
    return str(int(value) + rng.choice(offsets or (1, 2)))


def other_value(move: Move, value: str, rng: random.Random) -> str:
    """A wrong value of the kind that the move yields."""
    if value.lstrip("-").isdigit():
        return other_number(value, rng)
    if move.kind == "beside":
        place, thing = value.split(" ", 1)
        return f"{place} {_other(_THINGS, thing, rng)}"
    return _other(next(v for v in (RELATIONS, PLACES, _THINGS) if value in v), value, rng)


def _other(values: Sequence[str], value: str, rng: random.Random) -> str:
    return rng.choice([other for other in values if other != value])


_THINGS = (NOTHING, *(str(Thing(colour, shape)) for colour in COLOURS for shape in SHAPES))
