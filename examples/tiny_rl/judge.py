"""Rewards of a batch of responses: the packaged reward model in one call, kept on disk."""

import asyncio
import functools
import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.kept import KeptReward
from vrprm_reward.process_reward import DEMO, DEMO_FOLDER, ProcessReward, load_process_reward
from vrprm_reward.rewards.combine import RolloutReward, outcome_reward, rollout_reward
from vrprm_reward.rewards.outcome import Outcome, load_outcome
from vrprm_reward.scoring.profile import Profile, load_profile
from vrprm_reward.types import Problem, ProcessScore, Rollout

from .arms import Arm, Control
from .demonstrations import STEPS
from .problems import Task

THINKING_TOKENS = 256
"""Bound on what the reward model thinks: about ten steps' worth. On a response that it cannot make
sense of it would go on for ever, and every other response of the update waits for it."""

DTYPE = "float32"
"""So that figures are not those of one kind of CPU. bfloat16 is a quarter faster where the CPU
computes in it, and makes an update ten times as long where it does not."""

_EXACT = load_outcome("exact")


@dataclass(frozen=True)
class Judged:
    """What a batch earned."""

    rewards: list[RolloutReward]
    """One for each response."""

    scores: list[ProcessScore] = field(default_factory=list)
    """What the reward model said, before a control spoilt it; empty where it was not asked."""


@contextmanager
def kept_reward(folder: Path) -> Iterator[KeptReward]:
    """The demo checkpoint, which is asked once for each response to a problem, also by later runs.

    Raises:
        InputError: another process is using the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "scores.sqlite") as journal:
        reward = load_process_reward(
            DEMO,
            profile=_profile(),
            steps=STEPS,
            local=LocalOptions(deterministic=True, dtype=DTYPE),
        )
        with closing(reward):
            yield KeptReward(reward, journal, ImageSettings(), identity())


def _profile() -> Profile:
    profile = load_profile(DEMO)
    assert profile.think is not None
    shorter = profile.think.model_copy(update={"max_tokens": THINKING_TOKENS})
    return profile.model_copy(update={"think": shorter})


@functools.cache
def identity() -> str:
    """All that decides a score besides what is judged: the packaged weights and how they are asked.

    Figures under two identities are not to be mixed.
    """
    digest = hashlib.sha256((DEMO_FOLDER / "model.safetensors").read_bytes()).hexdigest()
    return f"demo {digest} {THINKING_TOKENS} {STEPS.separator!r} {DTYPE}"


def judge(
    reward: ProcessReward, arm: Arm, tasks: Sequence[Task], responses: Sequence[str], seed: str
) -> Judged:
    """Reward responses, one for each of `tasks`; a group stands in a row.

    `seed` decides what a control does with the scores.
    """
    outcomes = _outcomes(tasks, responses)
    if not arm.rule.needs_process:
        return Judged([outcome_reward(outcome, arm.rule) for outcome in outcomes])
    problems = [task.unanswered for task in tasks]
    if arm.control == "shuffled":
        problems = with_other_pictures(problems)
    scores = reward.score(
        [
            Rollout(problem=problem, response=text)
            for problem, text in zip(problems, responses, strict=True)
        ]
    )
    used = spoilt(scores, arm.control, random.Random(seed))
    pairs = zip(used, outcomes, strict=True)
    return Judged([rollout_reward(score, o, arm.rule) for score, o in pairs], scores)


def _outcomes(tasks: Sequence[Task], responses: Sequence[str]) -> list[Outcome]:
    async def all_() -> list[Outcome]:
        checks = zip(tasks, responses, strict=True)
        return [await _EXACT.acheck(text, task.question.answer) for task, text in checks]

    return asyncio.run(all_())


def with_other_pictures(problems: Sequence[Problem]) -> list[Problem]:
    """Every problem with the pictures of the next other problem; the last gets the first's.

    Raises:
        ValueError: all problems are the same.
    """
    distinct = list(dict.fromkeys(map(id, problems)))
    if len(distinct) < 2:
        raise ValueError("there is no other problem whose picture could be shown")
    by_id = {id(problem): problem for problem in problems}
    following = dict(zip(distinct, [*distinct[1:], distinct[0]], strict=True))
    changed = {
        one: by_id[one].model_copy(update={"images": by_id[other].images})
        for one, other in following.items()
    }
    return [changed[id(problem)] for problem in problems]


def spoilt(
    scores: Sequence[ProcessScore], control: Control | None, rng: random.Random
) -> list[ProcessScore]:
    """Scores as a control has them: under `random`, all step probabilities change places."""
    if control != "random":
        return list(scores)
    pool = [p for score in scores for p in score.p_correct]
    rng.shuffle(pool)
    dealt = iter(pool)
    return [
        score.model_copy(update={"p_correct": tuple(next(dealt) for _ in score.p_correct)})
        for score in scores
    ]
