"""Where runs start from: one policy that can see and solve, taught to err in several measures."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from .demonstrations import Errors
from .evaluation import evaluate
from .habits import Habits
from .policy import build_policy, load_policy
from .pretrain import BASE, Stage, train_stage
from .problems import HELD_OUT_SEED, tasks

FIGURES = "figures.json"
TAUGHT = "taught.json"
"""What a policy of a folder was taught last."""
PACKAGED = Path(__file__).parent / "start"
"""The hard start as `starts hard --anew` made it: to train one takes a quarter of an hour."""

MEASURED = 512
"""Held-out problems that a start is measured on."""


@dataclass(frozen=True)
class Start:
    """A policy to start from: what it has learnt to imitate last."""

    errors: Errors
    says: str
    habits: Habits
    stage: Stage
    """What makes it of the policy before."""
    of: str | None = None
    """The start that it is made of; the common policy (`make_base`) if none."""
    seed: str | None = None
    """Of the demonstrations; the start's name if none."""


_IMITATE = Stage("imitate", 40, rate=0.4, solutions=24)
_IMPROVE = Stage("imitate", 80, rate=0.4, solutions=24)
_INDULGE = Stage("indulge", 320, rate=1.0, solutions=24)
"""Four times as long: after 40 updates three of the habits were never sampled."""

STARTS: Mapping[str, Start] = MappingProxyType(
    {
        "hard": Start(Errors(0.3, 0.2, 0.75), "about 30% of steps right", Habits(), _IMITATE),
        "easy": Start(
            Errors(0.15, 0.1, 0.6), "about 50% of steps right", Habits(), _IMPROVE, of="hard"
        ),
        "gaming": Start(Errors(0.15, 0.1, 0.6), "as easy, with habits", Habits(0.6), _INDULGE),
        "gaming_hard": Start(
            Errors(0.15, 0.1, 0.6),
            "the same, taught to the hard start",
            Habits(0.6),
            _INDULGE,
            of="hard",
            seed="gaming",
        ),
    }
)

Tell = Callable[[str, int, dict[str, float]], None]


def make_start(name: str, root: Path, tell: Tell, *, anew: bool = False) -> Path:
    """The folder of a start: the one that is there, a copy of the packaged one, or trained.

    Args:
        name: one of `STARTS`.
        root: folder of all starts.
        tell: called with stage, update and losses.
        anew: train it although one is packaged.

    Raises:
        ValueError: the folder holds a start that was taught otherwise.
    """
    folder = root / name
    if folder.exists():
        _same(folder, STARTS[name])
    elif not anew and _taught(PACKAGED) == _lesson(STARTS[name]):
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(PACKAGED, part)
        os.replace(part, folder)
    else:
        start = STARTS[name]
        before = make_start(start.of, root, tell) if start.of else make_base(root, tell)
        _teach(before, folder, start, f"start {start.seed or name}", tell)
    return folder


def make_base(root: Path, tell: Tell) -> Path:
    """The folder of the policy that all starts are made of; it goes on from its last stage."""
    folders = [root / f"base-{stage.name}" for stage in BASE]
    if not folders[-1].exists():
        for place in range(sum(folder.exists() for folder in folders), len(BASE)):
            before = folders[place - 1] if place else None
            flawless = Start(Errors(), "no errors", Habits(), BASE[place])
            _teach(before, folders[place], flawless, "base", tell)
    return folders[-1]


def figures_of(folder: Path) -> dict[str, float]:
    """What a start is worth on held-out problems, measured once."""
    path = folder / FIGURES
    if not path.exists():
        found = evaluate(load_policy(folder), tasks(MEASURED, HELD_OUT_SEED), seed=0)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found, indent=2) + "\n")
        os.replace(part, path)
    figures: dict[str, float] = json.loads(path.read_text())
    return figures


def _teach(before: Path | None, folder: Path, start: Start, seed: str, tell: Tell) -> None:
    """Take the policy of `before`, or a new one, through a stage.

    The folder is written as a whole, so that a kill leaves none or all of it.
    """
    stage = start.stage
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
    (part / TAUGHT).write_text(json.dumps(_lesson(start), indent=2) + "\n")
    os.replace(part, folder)


def _lesson(start: Start) -> dict[str, Any]:
    return {
        "stage": asdict(start.stage),
        "errors": asdict(start.errors),
        "habits": asdict(start.habits),
        **({"of": start.of} if start.of else {}),
    }


def _same(folder: Path, start: Start) -> None:
    found = _taught(folder)
    if found != _lesson(start):
        raise ValueError(
            f"{folder} holds a start that was taught otherwise, {found or 'nobody knows how'}: "
            "choose another folder, or delete that one"
        )


def _taught(folder: Path) -> dict[str, Any] | None:
    path = folder / TAUGHT
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found
