"""Problems for the tiny policy: three counts and two sums about a picture of the demo world."""

import random
from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from vrprm_reward.demo.questions import Question, ask
from vrprm_reward.demo.scene import draw, random_scene
from vrprm_reward.types import Problem

MOVES = ("count", "count", "count", "sum", "sum", "final")
"""The plan of every problem. All prompts are then equally long, so that nothing is padded."""

KEPT = {0: 0.45, 1: 0.4, 2: 0.75}
"""How often a problem is kept for each count in it (else always): no number can be guessed."""

TRAINING_SEED, HELD_OUT_SEED, TUNING_SEED = 40_000_001, 50_000_001, 60_000_001
"""Where problems are drawn from; the reward model was trained and measured on other seeds."""


@dataclass(frozen=True)
class Task:
    """A question about a picture, with all that is true of it."""

    question: Question
    image: Image.Image

    @cached_property
    def problem(self) -> Problem:
        """What the policy and the reward model are asked."""
        return Problem(
            question=self.question.text,
            images=(self.image,),
            reference_answer=self.question.answer,
        )

    @cached_property
    def unanswered(self) -> Problem:
        """The same without the reference answer."""
        return Problem(question=self.question.text, images=(self.image,))


def random_task(rng: random.Random) -> Task:
    """A new problem."""
    while True:
        question = ask(rng, random_scene(rng), "arithmetic")
        if question is None or tuple(move.kind for move in question.moves) != MOVES:
            continue
        kept = 1.0
        for move in question.moves[:3]:
            kept *= KEPT.get(question.scene.count(move.of[0]), 1.0)
        if rng.random() < kept:
            return Task(question, draw(question.scene, rng))


def tasks(count: int, seed: int) -> list[Task]:
    """The first `count` problems of a seed."""
    rng = random.Random(seed)
    return [random_task(rng) for _ in range(count)]
