"""The command `score` with a process reward without a model, and rows for it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from tests.judged import judged
from vrprm_reward.cli import app
from vrprm_reward.scoring.profile import load_profile
from vrprm_reward.steps import StepSettings
from vrprm_reward.types import ProcessScore, Rollout, Usage

QUESTION = "How many circles?"


class WordReward:
    """A step is wrong where it says so; a response without steps is unscored."""

    def __init__(self, steps: StepSettings) -> None:
        self.profile = load_profile("two_stage")
        self.calls: list[int] = []
        self.closed = False
        self._steps = steps

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        self.calls.append(len(rollouts))
        return [self._score(rollout) for rollout in rollouts]

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        return self.score(rollouts)

    def close(self) -> None:
        self.closed = True

    def _score(self, rollout: Rollout) -> ProcessScore:
        return judged(
            rollout,
            lambda text: 0.125 if "wrong" in text else 0.875,
            settings=self._steps,
            thinking="Three circles are seen.",
            usage=Usage(prompt_tokens=100, generated_tokens=5, requests=3),
        )


class Interrupted(WordReward):
    """Scores the first piece and is interrupted in the next one."""

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        if "It is 0." not in rollouts[0].response:
            raise KeyboardInterrupt
        return super().score(rollouts)


class Loader:
    """Stands in for `load_process_reward` and remembers what it was asked for."""

    reward: Any = None

    def __call__(self, name: str, **settings: Any) -> Any:
        self.name, self.settings = name, settings
        if self.reward is None:
            self.reward = WordReward(settings["steps"])
        return self.reward


def good(response: str = "Three.\nIt is 3.", **more: object) -> dict[str, object]:
    return {"question": QUESTION, "images": "a.png", "response": response, **more}


def goods(count: int) -> list[dict[str, object]]:
    return [good(f"Three.\nIt is {number}.") for number in range(count)]


def write_rows(folder: Path, *rows: object, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def run(*arguments: str, stdin: str | None = None, columns: int = 100) -> Result:
    return CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1"}).invoke(
        app, list(arguments), input=stdin
    )


def records(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def plain(text: str) -> str:
    """Without colours, boxes and line breaks, which CI systems turn on and terminals move."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
