"""Questions about scenes, each with the plan that answers it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vrprm_reward.demo.moves import NOTHING, Move, beside, calculate, spelt, value_of
from vrprm_reward.demo.scene import COLOURS, KINDS, PLACES, SHAPES, Kind, Scene, random_scene

QUESTION_TYPES = ("count", "compare", "locate", "arithmetic")
LARGEST_NUMBER = 15

LARGEST_SUM_OF_STEPS = 7
"""Counts and operations of a question: with a plan or an error, a correction and the answer, the
numbers of its steps have one digit."""


@dataclass(frozen=True)
class Question:
    """A question about a scene with the moves that answer it."""

    text: str
    kind: str
    scene: Scene
    moves: tuple[Move, ...]
    answer: str


def random_kind(rng: random.Random) -> Kind:
    """A colour or a shape."""
    if rng.random() < 0.5:
        return Kind(colour=rng.choice(list(COLOURS)))
    return Kind(shape=rng.choice(SHAPES))


def random_kinds(rng: random.Random, count: int) -> list[Kind]:
    """Different kinds."""
    return rng.sample(KINDS, count)


PLANS = (
    "First I look at the picture.",
    "I look at every place in turn.",
    "I look first, then I answer.",
)


def _plan(rng: random.Random) -> tuple[Move, ...]:
    return (Move("plan", words=PLANS),) if rng.random() < 0.25 else ()


def ask(rng: random.Random, scene: Scene, kind: str) -> Question | None:
    """A question of a type about a scene with its plan; None when the scene does not allow it."""
    if kind == "count":
        return _ask_count(rng, scene)
    if kind == "compare":
        return _ask_compare(rng, scene)
    if kind == "locate":
        return _ask_locate(rng, scene)
    return _ask_arithmetic(rng, scene)


def _ask_count(rng: random.Random, scene: Scene) -> Question:
    of = random_kind(rng)
    moves = (
        *_plan(rng),
        Move("count", "n", of=(of,)),
        Move("final", "answer", uses=("n",)),
    )
    answer = spelt(str(scene.count(of)))
    return Question(f"How many {of.noun()} are there?", "count", scene, moves, answer)


def _ask_compare(rng: random.Random, scene: Scene) -> Question:
    kinds = tuple(random_kinds(rng, 2))
    these, those = (kind.noun() for kind in kinds)
    compare = Move("compare", "c", uses=("a", "b"), of=kinds)
    moves = (
        *_plan(rng),
        Move("count", "a", of=kinds[:1]),
        Move("count", "b", of=kinds[1:]),
        compare,
        Move("final", "answer", uses=("c",)),
    )
    counts = {name: str(scene.count(kind)) for name, kind in zip("ab", kinds, strict=True)}
    text = f"Against the {those}, are the {these} more, fewer or equal?"
    return Question(text, "compare", scene, moves, value_of(compare, scene, counts))


def _ask_locate(rng: random.Random, scene: Scene) -> Question | None:
    things = [thing for thing in scene.cells if thing is not None]
    unique = sorted({thing for thing in things if things.count(thing) == 1}, key=str)
    variant = rng.choice(("what", "where", "beside"))
    if variant == "what" or not unique:
        place = rng.choice(PLACES)
        final = Move("final", "answer", uses=("x",), words=("thing",))
        moves = (*_plan(rng), Move("find", "x", place=place), final)
        answer = str(scene.at(place) or NOTHING)
        return Question(f"What is in the {place}?", "locate", scene, moves, answer)
    thing = rng.choice(unique)
    kind = Kind(thing.colour, thing.shape)
    place = scene.places(kind)[0]
    if variant == "where":
        final = Move("final", "answer", uses=("x",), of=(kind,))
        moves = (*_plan(rng), Move("find", "x", of=(kind,)), final)
        return Question(f"Where is the {thing}?", "locate", scene, moves, place)
    side = rng.choice([side for side in ("left", "right") if beside(place, side)])
    moves = (
        *_plan(rng),
        Move("find", "at", of=(kind,)),
        Move("beside", "x", uses=("at",), side=side),
        Move("final", "answer", uses=("x",), side=side, words=("thing",)),
    )
    answer = str(scene.at(beside(place, side) or "") or NOTHING)
    text = f"What is directly {side} of the {thing}?"
    return Question(text, "locate", scene, moves, answer)


def _ask_arithmetic(rng: random.Random, scene: Scene) -> Question | None:
    """Two to five operations: counts first, then one operation after another."""
    operations = rng.randint(2, 5)
    counted = rng.randint(2, min(4, operations + 1, LARGEST_SUM_OF_STEPS - operations))
    kinds = random_kinds(rng, counted)
    counts = tuple(Move("count", f"n{i}", of=(kind,)) for i, kind in enumerate(kinds))
    phrases = [f"Start with the number of {kinds[0].noun()}"]
    value, previous = scene.count(kinds[0]), "n0"
    waiting = list(range(1, counted))
    sums: list[Move] = []
    for turn in range(operations):
        name = f"v{turn}"
        if turn == 0 or (waiting and rng.random() < len(waiting) / (operations - turn)):
            index = waiting.pop(0)
            operator = rng.choice(("plus", "plus", "minus"))
            of = (kinds[0], kinds[index]) if turn == 0 else (kinds[index],)
            uses = (previous, f"n{index}")
            move = Move("sum", name, uses=uses, of=of, operator=operator)
            verb = "add" if operator == "plus" else "subtract"
            phrases.append(f"{verb} the number of {kinds[index].noun()}")
            numbers = {previous: str(value), f"n{index}": str(scene.count(kinds[index]))}
        else:
            operator = (
                "times" if value <= 5 and rng.random() < 0.3 else rng.choice(("plus", "minus"))
            )
            constant = 2 if operator == "times" else rng.randint(1, 4)
            move = Move("sum", name, uses=(previous,), operator=operator, constant=constant)
            verb = {"plus": "add", "minus": "subtract", "times": "multiply by"}[operator]
            phrases.append(f"{verb} {spelt(str(constant))}")
            numbers = {previous: str(value)}
        value = calculate(move, numbers)
        if not 0 <= value <= LARGEST_NUMBER:
            return None
        sums.append(move)
        previous = name
    if waiting:
        return None
    final = Move("final", "answer", uses=(previous,))
    plan = _plan(rng)
    if counted + operations == LARGEST_SUM_OF_STEPS:
        plan = ()
    moves = (*plan, *counts, *sums, final)
    text = ", then ".join(phrases) + ". What is the result?"
    return Question(text, "arithmetic", scene, moves, spelt(str(value)))


def random_question(
    rng: random.Random,
    kinds: Sequence[str] = QUESTION_TYPES,
    scenes: Callable[[random.Random], Scene] = random_scene,
) -> Question:
    """A question about a new scene; arithmetic is asked twice as often as each other type."""
    weights = [2 if kind == "arithmetic" else 1 for kind in kinds]
    while True:
        question = ask(rng, scenes(rng), rng.choices(kinds, weights)[0])
        if question is not None:
            return question
