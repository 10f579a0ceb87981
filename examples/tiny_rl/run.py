"""One run: a start, an arm, a rate, a seed. It goes on where it was killed."""

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from vrprm_reward.jobs.kept import KeptReward
from vrprm_reward.rewards.metrics import batch_metrics

from .arms import ARMS
from .evaluation import evaluate, figures
from .habits import habit_shares
from .judge import Judged, identity, judge, kept_reward
from .learning import make_optimizer, rate_factor, token_advantages, update, without_ends
from .logs import RunLog
from .policy import Policy, load_policy
from .problems import HELD_OUT_SEED, TRAINING_SEED, TUNING_SEED, Task, tasks
from .sampling import LONGEST, Response, respond
from .starts import MEASURED, figures_of
from .truth import truth_of

CHECKPOINT = "checkpoint.pt"
FINISHED = "finished.json"


class RunSettings(BaseModel):
    """All that decides a run, and so its curve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    """Name of the start, see `starts.STARTS`."""
    arm: str
    """Name of the arm, see `arms.ARMS`."""
    rate: float = Field(gt=0)
    """Learning rate of AdamW at its highest."""
    seed: int = 0
    """Of the sampling, and of the order of the problems."""
    updates: int = Field(default=60, gt=0)
    """How many."""
    problems: int = Field(default=4, gt=1)
    """Problems in an update; each is answered by a group."""
    group: int = Field(default=8, gt=1)
    """Responses to a problem."""
    longest: int = Field(default=LONGEST, gt=0)
    """Tokens of a response at most."""
    pool: int = Field(default=256, gt=1)
    """Training problems, gone through again and again in another order."""
    held_out: int = Field(default=512, gt=0)
    """Problems of the evaluation."""
    tuning: bool = False
    """Evaluate on other problems: rates are not chosen on those that are reported."""
    evaluate_every: int = Field(default=10, gt=0)
    """Updates between two evaluations (and checkpoints)."""
    judge: str = Field(default_factory=identity)
    """The reward model: figures under two of them do not mix."""

    @field_validator("arm")
    @classmethod
    def _arm_is_known(cls, arm: str) -> str:
        if arm not in ARMS:
            raise ValueError(f"there is no arm {arm!r}: choose one of {', '.join(ARMS)}")
        return arm

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.start}-{self.arm}-{self.rate:g}-seed{self.seed}"


def run(
    settings: RunSettings,
    start: Path,
    folder: Path,
    scores: Path,
    tell: Callable[[int], None] | None = None,
) -> None:
    """Train, or go on. Nothing happens where the folder says that the run is finished.

    Args:
        settings: what to do.
        start: folder of the policy to start from.
        folder: where log and checkpoint are.
        scores: folder of the kept scores, one process at a time.
        tell: called with the number of updates done.

    Raises:
        ValueError: the folder holds a run with other settings, or the settings want another reward
            model than the packaged one.
    """
    if is_finished(settings, folder):
        return
    if settings.judge != identity():
        raise ValueError(
            f"the reward model of these settings is {settings.judge!r}, and the packaged one is "
            f"{identity()!r}: take other settings"
        )
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    policy = load_policy(start)
    policy.model.model.visual.requires_grad_(False)  # what it sees is not to be unlearnt
    optimizers = [make_optimizer(policy)]
    done, spent = _resume(settings, folder, policy, optimizers)
    pool = tasks(settings.pool, TRAINING_SEED)
    held_out = tasks(settings.held_out, TUNING_SEED if settings.tuning else HELD_OUT_SEED)
    with kept_reward(scores) as reward:  # first: another process at work here is left alone
        log = RunLog(folder, done)
        if done == 0:
            log.write("held_out", 0, _at_the_start(settings, start, policy, held_out))
        for number in range(done + 1, settings.updates + 1):
            began = time.monotonic()
            numbers = train_update(policy, optimizers, settings, pool, number, reward)
            spent += time.monotonic() - began
            numbers |= {"rollouts": number * settings.problems * settings.group, "seconds": spent}
            log.write("train", number, numbers)
            if number % settings.evaluate_every == 0 or number == settings.updates:
                found = evaluate(policy, held_out, seed=0, longest=settings.longest)
                log.write("held_out", number, found | {"seconds": spent})
                _save(settings, folder, policy, optimizers, number, spent)
            if tell is not None:
                tell(number)
    log.close()
    (folder / FINISHED).write_text(settings.model_dump_json() + "\n")


def _at_the_start(
    settings: RunSettings, start: Path, policy: Policy, held_out: Sequence[Task]
) -> dict[str, float]:
    """What the start is worth; measured once for all runs from it where they ask for the same."""
    if (settings.held_out, settings.longest, settings.tuning) == (MEASURED, LONGEST, False):
        return figures_of(start)
    return evaluate(policy, held_out, seed=0, longest=settings.longest)


def is_finished(settings: RunSettings, folder: Path) -> bool:
    """Whether a run is done. Raises `ValueError` for a run with other settings."""
    path = folder / FINISHED
    if not path.exists():
        return False
    check_same(settings, json.loads(path.read_text()), folder)
    return True


def train_update(
    policy: Policy,
    optimizers: Sequence[torch.optim.Optimizer],
    settings: RunSettings,
    pool: Sequence[Task],
    number: int,
    reward: KeptReward,
) -> dict[str, float]:
    """Sample, reward, learn. All that is random comes from the seed and the update's number."""
    arm = ARMS[settings.arm]
    for group in (g for o in optimizers for g in o.param_groups):
        group["lr"] = settings.rate * rate_factor(number, settings.updates)
    asked = problems_of(settings, pool, number)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
    times = [time.monotonic()]
    policy.model.eval()
    prompts = [policy.prompt(task) for task in asked]
    responses = respond(
        policy, prompts, group=settings.group, generator=generator, longest=settings.longest
    )
    times.append(time.monotonic())
    each = [task for task in asked for _ in range(settings.group)]
    before = reward.computed
    judged = judge(reward, arm, each, [r.text for r in responses], f"{settings.seed} {number}")
    times.append(time.monotonic())
    groups = [index // settings.group for index in range(len(responses))]
    advantages = token_advantages(
        judged.rewards, responses, groups, arm.estimator, policy.encoder.tokenizer
    )
    if arm.end_apart:
        advantages = without_ends(advantages, responses, policy.end)
    policy.model.train()
    numbers = update(policy, optimizers, prompts, responses, advantages)
    times.append(time.monotonic())
    numbers |= _truth_numbers(each, responses, judged)
    numbers |= {"advantage": float(advantages.abs().mean()), "scored": reward.computed - before}
    names = ("sampling_s", "scoring_s", "learning_s")
    return numbers | {
        name: end - begin for name, (begin, end) in zip(names, pairwise(times), strict=True)
    }


def problems_of(settings: RunSettings, pool: Sequence[Task], number: int) -> list[Task]:
    """The problems of an update: the pool in an order that changes with each pass through it."""
    first = (number - 1) * settings.problems
    found = []
    for place in range(first, first + settings.problems):
        turn, index = divmod(place, len(pool))
        order = list(range(len(pool)))
        random.Random(f"{settings.seed} {turn}").shuffle(order)
        found.append(pool[order[index]])
    return found


def _truth_numbers(
    asked: Sequence[Task], responses: Sequence[Response], judged: Judged
) -> dict[str, float]:
    """What the responses of an update earned, beside what is true of them."""
    truths = [truth_of(task, r.text) for task, r in zip(asked, responses, strict=True)]
    found = figures(truths, responses) | habit_shares(asked, responses)
    found |= {
        key: value
        for key, value in batch_metrics(judged.rewards, prefix="reward").items()
        if not key.startswith(("reward/steps", "reward/first_error"))
    }
    agreed = [
        verdict == label
        for score, truth in zip(judged.scores, truths, strict=False)
        if score.scored and len(score.p_correct) == len(truth.labels)
        for verdict, label in zip(score.judgements, truth.labels, strict=True)
    ]
    return found | ({"judge_accuracy": fmean(agreed)} if agreed else {})


def _save(
    settings: RunSettings,
    folder: Path,
    policy: Policy,
    optimizers: Sequence[torch.optim.Optimizer],
    update: int,
    seconds: float,
) -> None:
    part = folder / f"{CHECKPOINT}.part"
    torch.save(
        {
            "settings": settings.model_dump(),
            "update": update,
            "seconds": seconds,
            "model": policy.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        },
        part,
    )
    os.replace(part, folder / CHECKPOINT)


def _resume(
    settings: RunSettings,
    folder: Path,
    policy: Policy,
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[int, float]:
    """Updates done and seconds spent, with the policy as it was then."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0, 0.0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    check_same(settings, state["settings"], folder)
    policy.model.load_state_dict(state["model"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return int(state["update"]), float(state["seconds"])


def check_same(settings: RunSettings, found: dict[str, Any], folder: Path) -> None:
    """Raises `ValueError` where a folder holds a run with other settings, `found`."""
    wanted = settings.model_dump()
    if wanted != found:
        other = {key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)}
        shown = ", ".join(
            f"{key} {found.get(key)!r} and not {wanted.get(key)!r}" for key in sorted(other)
        )
        raise ValueError(
            f"{folder} holds a run with other settings ({shown}): choose another root, or delete "
            "that folder"
        )
