"""Where runs start from: one policy that can see and solve, taught to err in several measures."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from .demonstrations import Errors
from .evaluation import evaluate
from .habits import Habits
from .policy import build_policy, load_policy
from .pretrain import BASE, Stage, train_stage
from .problems import HELD_OUT_SEED, tasks

FIGURES = "figures.json"
MEASURED = 512
"""Held-out problems that a start is measured on."""


@dataclass(frozen=True)
class Start:
    """A policy to start from: what it has learnt to imitate last."""

    errors: Errors
    says: str
    habits: Habits


STARTS: Mapping[str, Start] = MappingProxyType(
    {
        "hard": Start(Errors(0.5, 0.4, 0.6), "about 30% of steps right", Habits()),
        "easy": Start(Errors(0.28, 0.2, 0.5), "about 50% of steps right", Habits()),
        "gaming": Start(Errors(0.28, 0.2, 0.5), "as easy, with habits", Habits(0.4)),
    }
)

IMITATE = Stage("imitate", 120, rate=0.4, solutions=24)
"""What makes a start of the common policy."""

Tell = Callable[[str, int, dict[str, float]], None]


def make_start(name: str, root: Path, tell: Tell) -> Path:
    """The folder of a start, trained where it is not there.

    Args:
        name: one of `STARTS`.
        root: folder of all starts.
        tell: called with stage, update and losses.
    """
    folder = root / name
    if (folder / FIGURES).exists():
        return folder
    return _taught(IMITATE, make_base(root, tell), folder, STARTS[name], f"start {name}", tell)


def make_base(root: Path, tell: Tell) -> Path:
    """The folder of the policy that all starts are made of."""
    flawless = Start(Errors(), "no errors", Habits())
    folder: Path | None = None
    for stage in BASE:
        folder = _taught(stage, folder, root / f"base-{stage.name}", flawless, "base", tell)
    assert folder is not None
    return folder


def figures_of(folder: Path) -> dict[str, float]:
    """What was measured of a start."""
    found: dict[str, float] = json.loads((folder / FIGURES).read_text())
    return found


def _taught(
    stage: Stage, before: Path | None, folder: Path, start: Start, seed: str, tell: Tell
) -> Path:
    """The policy of `before`, or a new one, after a stage: from its folder if it is there.

    A folder is written as a whole, so that a kill leaves none or all of it.
    """
    if (folder / FIGURES).exists():
        return folder
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = build_policy() if before is None else load_policy(before)
    train_stage(
        policy,
        stage,
        random.Random(f"{seed} {stage.name}"),
        start.errors,
        start.habits,
        lambda update, losses: tell(stage.name, update, losses),
    )
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    policy.save(part)
    # Before it has been shown solutions, there is nothing to measure.
    found = evaluate(policy, tasks(MEASURED, HELD_OUT_SEED), seed=0) if stage.solutions else {}
    (part / FIGURES).write_text(json.dumps(found, indent=2) + "\n")
    os.replace(part, folder)
    return folder
