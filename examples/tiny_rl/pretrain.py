"""Teach a policy by imitation: to see, to count, then to write solutions with errors in them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from vrprm_reward.demo.look import look_losses
from vrprm_reward.demo.losses import losses
from vrprm_reward.demo.moves import spelt
from vrprm_reward.demo.optimizers import make_optimizers
from vrprm_reward.demo.recipe import demo_profile
from vrprm_reward.demo.samples import Sample, Target
from vrprm_reward.demo.scene import KINDS, draw, random_scene

from .demonstrations import Errors, response_of, solution
from .habits import Habits, indulge
from .policy import Policy
from .problems import random_task


@dataclass(frozen=True)
class Stage:
    """A part of the pre-training."""

    name: str
    updates: int
    rate: float = 1.0
    counts: int = 0
    """Pictures in an update of which all kinds are counted."""
    solutions: int = 0
    """Problems in an update that are solved."""
    pictures: int = 0
    """Pictures of which every visual token is named."""


BASE = (
    Stage("look", 60, pictures=48),
    Stage("count", 200, counts=48, pictures=4),
    Stage("solve", 240, counts=16, solutions=16, pictures=4),
    Stage("solve-more", 260, counts=24, solutions=24, pictures=4),
    Stage("solve-best", 280, counts=24, solutions=24, pictures=4),
)
"""What every start has in common: a policy that sees and solves. Counting needs many numbers in an
update: with 12 pictures of 6 numbers each it did not begin within 300 updates, with 64 of 8 it did
within 30."""


def solution_sample(policy: Policy, rng: random.Random, errors: Errors, habits: Habits) -> Sample:
    """A problem with a solution; the loss of numbers is averaged apart from that of words."""
    task = random_task(rng)
    steps = indulge(task, solution(task, rng, errors), rng, habits)
    return answered(policy, policy.prompt(task), response_of(steps))


def counts_sample(policy: Policy, rng: random.Random) -> Sample:
    """The number of things of every kind in a picture: bare, or as a solution says it."""
    scene = random_scene(rng)
    prompt = policy.asked(draw(scene, rng), "Count.")
    kinds = rng.sample(KINDS, len(KINDS))
    counts = [(kind.noun(), spelt(str(scene.count(kind)))) for kind in kinds]
    bare = "".join(f" {noun} {number}" for noun, number in counts)
    said = response_of([f"The number of {noun} is {number}." for noun, number in counts])
    sample = answered(policy, prompt, rng.choice((bare, said)))
    numbers = tuple(target for target in sample.targets if target.task == "number")
    return replace(sample, targets=numbers)


def answered(policy: Policy, prompt: Any, response: str) -> Sample:
    """A prompt and a response, of which every token is to be learnt."""
    tokenizer = policy.encoder.tokenizer
    ids = [*tokenizer.encode(response, add_special_tokens=False), policy.end]
    numbers = policy.numbers
    targets = tuple(
        Target(len(prompt) + place - 1, token, "number" if token in numbers else "word")
        for place, token in enumerate(ids)
    )
    return Sample((*(int(i) for i in prompt.ids), *ids), prompt.images, targets)


def train_stage(
    policy: Policy,
    stage: Stage,
    rng: random.Random,
    errors: Errors,
    habits: Habits,
    tell: Callable[[int, dict[str, float]], None],
) -> None:
    """One stage, with rates that fall to a tenth at its end."""
    optimizers = make_optimizers(policy.model)
    profile = demo_profile("demo")
    looks = look_losses(policy.model, policy.encoder, profile, rng, stage.pictures)
    policy.model.train()
    for update in range(stage.updates):
        factor = stage.rate * min((update + 1) / 20, 1 - 0.9 * update / stage.updates)
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = factor * group["initial_lr"]
        batches = [
            [counts_sample(policy, rng) for _ in range(stage.counts)],
            [solution_sample(policy, rng, errors, habits) for _ in range(stage.solutions)],
        ]
        found = dict(next(looks)) if stage.pictures else {}
        if found:
            torch.stack([*found.values()]).sum().backward()
        for name, batch in zip(("counts", "solutions"), batches, strict=True):
            if batch:
                now = losses(policy.model, policy.encoder, batch)
                torch.stack([*now.values()]).sum().backward()
                found |= {f"{name} {task}": loss for task, loss in now.items()}
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tell(update, {name: round(loss.item(), 4) for name, loss in found.items()})
