"""Candidate solutions that are exercises: many claims of one kind about one picture or tally."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from vrprm_reward.demo.moves import Move, OutsideError
from vrprm_reward.demo.questions import random_question
from vrprm_reward.demo.scene import KINDS, PLACES, Kind, Scene, draw, random_scene
from vrprm_reward.demo.world import Example, Writer, solve


@dataclass(frozen=True)
class Tally(Scene):
    """Numbers that nobody could guess, as if they had been counted in a picture."""

    numbers: tuple[int, ...] = ()
    """How many there are of each of `KINDS`."""

    def count(self, kind: Kind) -> int:
        """How many things there are of a colour or of a shape."""
        return self.numbers[KINDS.index(kind)]


def random_tally(rng: random.Random) -> Tally:
    """Numbers of every kind, in a picture that is never shown."""
    return Tally((None,) * len(PLACES), tuple(rng.randint(0, 7) for _ in KINDS))


def tally_example(rng: random.Random, error_rate: float = 0.8) -> Example:
    """A problem about numbers nobody could guess, with one candidate solution."""
    question = random_question(rng, ("count", "compare", "arithmetic"), random_tally)
    return solve(question, rng, error_rate)


def quiz_example(rng: random.Random, error_rate: float = 0.5) -> Example:
    """Claims about the cells of one picture, as many as have numbers of one digit."""
    while True:
        scene = random_scene(rng)
        moves: list[Move] = []
        while len(moves) < QUIZ_STEPS:
            moves += _quiz_moves(scene, rng, str(len(moves)))
        writer = Writer(scene, rng)
        try:
            for move in moves[:QUIZ_STEPS]:
                writer.write(move, "misread" if rng.random() < error_rate else None)
        except OutsideError:
            continue
        picture = draw(scene, rng)
        return Example("", "", "quiz", scene, picture, tuple(writer.steps), ())


QUIZ_STEPS = 9


def _quiz_moves(scene: Scene, rng: random.Random, name: str) -> list[Move]:
    kind = rng.choice(("what", "where", "beside"))
    if kind == "what":
        return [Move("find", name, place=rng.choice(PLACES))]
    things = [thing for thing in scene.cells if thing and scene.cells.count(thing) == 1]
    if not things:
        return []
    thing = rng.choice(things)
    found = Move("find", name, of=(Kind(thing.colour, thing.shape),))
    if kind == "where":
        return [found]
    side = rng.choice(("left", "right"))
    return [found, Move("beside", f"{name} beside", uses=(name,), side=side)]


def count_example(rng: random.Random, error_rate: float = 0.5) -> Example:
    """Claims about the numbers of things in one picture."""
    scene = random_scene(rng)
    writer = Writer(scene, rng)
    for number in range(QUIZ_STEPS):
        move = Move("count", str(number), of=(rng.choice(KINDS),))
        writer.write(move, "misread" if rng.random() < error_rate else None)
    return Example("", "", "count", scene, draw(scene, rng), tuple(writer.steps), ())


def sums_example(rng: random.Random) -> Example:
    """As `drill_example`, about a picture: what is calculated with can be seen in it."""
    return drill_example(rng, random_scene)


def drill_example(
    rng: random.Random, numbers: Callable[[random.Random], Scene] = random_tally
) -> Example:
    """As many comparisons and calculations about a tally, many with a wrong number in them.

    Args:
        rng: source of all that is random.
        numbers: makes what things are counted in.
    """
    while True:
        counted = numbers(rng)
        writer = Writer(counted, rng)
        try:
            while len(writer.steps) < QUIZ_STEPS:
                _drill(writer, rng)
        except OutsideError:
            continue
        picture = draw(counted, rng)
        return Example("", "", "drill", counted, picture, tuple(writer.steps[:QUIZ_STEPS]), ())


def _drill(writer: Writer, rng: random.Random) -> None:
    """A comparison, or sums that go on from one another."""
    of = tuple(rng.sample(KINDS, 3))
    for name, kind in zip("abc", of, strict=True):
        writer.truth[name] = writer.belief[name] = str(writer.scene.count(kind))
    if rng.random() < 0.25:
        moves = [Move("compare", "d", uses=("a", "b"), of=of[:2])]
    else:
        signs = ("plus", "plus", "minus")
        moves = [Move("sum", "d", uses=("a", "b"), of=of[:2], operator=rng.choice(signs))]
        if rng.random() < 0.4:
            moves.append(Move("sum", "e", ("d", "c"), of[2:], operator=rng.choice(signs)))
        operator = rng.choice((*signs, "times"))
        constant = 2 if operator == "times" else rng.randint(1, 4)
        moves.append(Move("sum", "f", (moves[-1].name,), operator=operator, constant=constant))
        moves.append(Move("final", "g", ("f",)))
    start = len(writer.steps)
    try:
        for move in moves:
            wrong = ("slip",) if move.kind == "final" else ("slip", "carry")
            writer.write(move, rng.choice((None, None, *wrong)))
    except OutsideError:
        del writer.steps[start:]
