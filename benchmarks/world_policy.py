"""A policy of the demo world whose every step has a true label: a solver that errs.

It knows the flawless solution of a problem and writes it down step by step. With probability
`slip` a step goes wrong: one of its words (a number, a colour, a shape, a place) is replaced by
another of its kind. Once a step has gone wrong, the policy believes it, and every later step goes
wrong with probability `carry`. A step is right exactly when it says what the flawless solution
says there, a response when its last step is right.
"""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vrprm_reward.demo.evaluate import rollout_of
from vrprm_reward.demo.moves import NUMBERS, RELATIONS
from vrprm_reward.demo.scene import COLOURS, PLACES, SHAPES
from vrprm_reward.demo.world import Example, random_example
from vrprm_reward.images import ImageSettings, load_image
from vrprm_reward.sampling.policy import Continuation
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout, Step, Usage

SEPARATOR = "\n\n"
SEED = 30_000_001
"""Problems are drawn from here on; neither training nor held-out evaluation uses such seeds."""

_KINDS = (NUMBERS[:14], RELATIONS, PLACES, tuple(COLOURS), SHAPES)
_OTHERS = {word: [w for w in kind if w != word] for kind in _KINDS for word in kind}
_WORD = re.compile(rf"\b({'|'.join(_OTHERS)})\b")


@dataclass(frozen=True)
class Task:
    """A problem of the world with its flawless solution."""

    example: Example

    @cached_property
    def truth(self) -> tuple[str, ...]:
        """The steps of the flawless solution."""
        return tuple(step.text for step in self.example.steps)

    @cached_property
    def problem(self) -> Problem:
        """As a user would hand it in, with the reference answer."""
        problem = rollout_of(self.example).problem
        return problem.model_copy(update={"reference_answer": self.example.answer})

    def labels(self, steps: list[str]) -> list[int]:
        """1 for every step that is right, else 0."""
        return [int(text == true) for text, true in zip(steps, self.truth, strict=False)]


def tasks(count: int, seed: int = SEED) -> list[Task]:
    """Problems with solutions of at least three steps."""
    rng = random.Random(seed)
    found: list[Task] = []
    while len(found) < count:
        example = random_example(rng, 0.0)
        if len(example.steps) >= 3:
            found.append(Task(example))
    return found


@dataclass(frozen=True)
class NoisySolver:
    """The policy. Deterministic: the seed decides."""

    tasks: tuple[Task, ...]
    slip: float = 0.15
    carry: float = 0.8
    root: Path | None = None
    """Where the images of problems lie that come from files."""
    identity: str = "noisy solver of the demo world"

    @cached_property
    def _by_problem(self) -> dict[tuple[str, bytes], Task]:
        return {self._key(task.problem): task for task in self.tasks}

    def task(self, problem: Problem) -> Task:
        """The task that a problem belongs to."""
        return self._by_problem[self._key(problem)]

    def _key(self, problem: Problem) -> tuple[str, bytes]:
        image = load_image(problem.images[0], ImageSettings(root=self.root))
        return problem.question, image.tobytes()

    async def propose(
        self, problem: Problem, prefix: tuple[str, ...], n: int, *, seed: int
    ) -> list[Continuation]:
        """`n` next steps."""
        task = self.task(problem)
        rng = random.Random(f"{seed} {problem.question} {prefix}")
        erred = 0 in task.labels(list(prefix))
        last = len(prefix) + 1 == len(task.truth)
        steps = [self._step(task.truth[len(prefix)], erred, rng) for _ in range(n)]
        return [Continuation(text, finished=last, tokens=len(text.split())) for text in steps]

    def _step(self, true: str, erred: bool, rng: random.Random) -> str:
        words = list(_WORD.finditer(true))
        if not words or rng.random() >= (self.carry if erred else self.slip):
            return true
        word = rng.choice(words)
        other = rng.choice(_OTHERS[word[1]])
        return true[: word.start()] + other + true[word.end() :]

    def solve(self, task: Task, rng: random.Random) -> list[str]:
        """A whole response, as steps."""
        steps: list[str] = []
        for true in task.truth:
            steps.append(self._step(true, 0 in task.labels(steps), rng))
        return steps


@dataclass(frozen=True)
class OracleReward:
    """A process reward that knows the truth, blurred: a right step gets a p around `hit`, a wrong
    one around 1 - `hit`, the same one every time. `hit` = 1 is never wrong."""

    solver: NoisySolver
    hit: float = 1.0

    def score(self, rollouts: list[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts."""
        return [self._score(rollout) for rollout in rollouts]

    async def ascore(self, rollouts: list[Rollout]) -> list[ProcessScore]:
        """As `score`."""
        return self.score(rollouts)

    def _score(self, rollout: Rollout) -> ProcessScore:
        task = self.solver.task(rollout.problem)
        steps: tuple[Step, ...] = rollout.steps or join_steps(rollout.response.split(SEPARATOR))[1]
        found = []
        for index, step in enumerate(steps):
            rng = random.Random(f"{step.text} {task.problem.question} {index}")
            right = step.text == task.truth[index]
            told = right if rng.random() < self.hit else not right
            found.append(rng.uniform(0.55, 1.0) if told else rng.uniform(0.0, 0.45))
        return ProcessScore(
            status="scored",
            steps=steps,
            p_correct=tuple(found),
            usage=Usage(prompt_tokens=100 * len(steps), generated_tokens=60, requests=1),
        )


def world_solver() -> NoisySolver:
    """The policy for files of `benchmarks.world_files`:
    `vrprm-reward sample runs/world/tasks.jsonl --policy benchmarks.world_policy:world_solver`."""
    return NoisySolver(tuple(tasks(60)), root=Path("runs/world"))
