"""Questions about scenes, each with the plan that answers it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from vrprm_reward.demo.moves import Move, calculate, neighbour
from vrprm_reward.demo.scene import COLOURS, PLACES, ROWS, SHAPES, Kind, Scene, random_scene

QUESTION_TYPES = ("count", "compare", "locate", "arithmetic")
LARGEST_NUMBER = 40


@dataclass(frozen=True)
class Question:
    """A question about a scene with the moves that answer it."""

    text: str
    kind: str
    scene: Scene
    moves: tuple[Move, ...]
    answer: str


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
    return Question(text, "locate", scene, moves, neighbour(scene, place, side))


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
            value = calculate(move, {previous: str(value)})
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
