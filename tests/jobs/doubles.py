"""A process reward without a model, and a watcher that remembers, for tests of jobs."""

from collections.abc import Sequence
from pathlib import Path

from tests.judged import judged
from vrprm_reward.errors import RowError
from vrprm_reward.types import ProcessScore, Rollout, Usage


class LengthReward:
    """Scores a step by its length; `fail` in a response is our fault, an empty one its own."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.working = True

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        self.seen += [rollout.response for rollout in rollouts]
        return [self._score(rollout) for rollout in rollouts]

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        return self.score(rollouts)

    def _score(self, rollout: Rollout) -> ProcessScore:
        if "fail" in rollout.response and self.working:
            return ProcessScore(status="unscored_ours", reason="engine", detail="It is down.")
        return judged(
            rollout,
            lambda text: len(text) % 10 / 10 + 0.05,
            thinking="I looked.",
            usage=Usage(prompt_tokens=10, generated_tokens=2, requests=3, rounds=2),
        )


class Watching:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.bad: list[int] = []
        self.kept_counts: list[int] = []
        self.resumed_counts: list[int] = []
        self.advanced: list[tuple[int, int]] = []

    def begin(self, what: str, total: int | None) -> None:
        pass

    def advance(self, rows: int, computed: int) -> None:
        self.advanced.append((rows, computed))

    def bad_row(self, error: RowError) -> None:
        self.bad.append(error.line)

    def kept(self, count: int, path: Path) -> None:
        self.kept_counts.append(count)

    def resumed(self, count: int) -> None:
        self.resumed_counts.append(count)
