"""Whether the model is loaded and answering: the last scored rollout, or else a canary."""

import asyncio
import io
import itertools
import logging
import time

from PIL import Image

from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.types import Problem, ProcessScore, Rollout

_log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that a question whether the server is ready waits for the canary."""

_STALE = 300.0
"""Seconds for which an earlier answer speaks for a model that is too busy for the canary."""


class Readiness:
    """The state of one reward model.

    Args:
        reward: the model.
        fresh_seconds: how long a scored rollout counts as proof that it answers.
    """

    def __init__(self, reward: ProcessReward, *, fresh_seconds: float) -> None:
        self.loaded = asyncio.Event()
        self._reward = reward
        self._fresh_seconds = fresh_seconds
        self._answered = float("-inf")
        self._failed = False
        self._canary: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)

    def saw(self, score: ProcessScore) -> None:
        """Take note of a score, if it took the model to give it.

        An empty response and a kept score are answered by a model that is long gone.
        """
        if score.scored and score.usage.requests > 0:
            self._model_answered()

    def _model_answered(self) -> None:
        self._answered = time.monotonic()
        self._failed = False

    async def is_ready(self) -> bool:
        """Whether the model answers. Takes at most about 5 seconds."""
        if not self.loaded.is_set():
            return False
        if time.monotonic() - self._answered > self._fresh_seconds:
            if self._canary is None or self._canary.done():
                self._canary = asyncio.create_task(self._ask())
            await asyncio.wait({self._canary}, timeout=_PATIENCE)
        return not self._failed and time.monotonic() - self._answered < _STALE

    async def close(self) -> None:
        """Give up a canary that is under way."""
        if self._canary is not None:
            self._canary.cancel()
            await asyncio.wait({self._canary}, timeout=_PATIENCE)

    async def _ask(self) -> None:
        try:
            (score,) = await self._reward.ascore([_canary(next(self._numbers))])
        except Exception:  # noqa: BLE001  whatever a model may raise
            _log.exception("the model did not score the canary")
            self._failed = True
            return
        if score.status == "unscored_ours":
            _log.error("the model did not score the canary: %s: %s", score.reason, score.detail)
            self._failed = True
        else:
            self._model_answered()


def _canary(number: int) -> Rollout:
    """A rollout that was never scored before."""
    file = io.BytesIO()
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (16, 16, 48, 48))
    picture.save(file, "PNG")
    problem = Problem(
        question=f"Look {number}: what colour is the square?", images=(file.getvalue(),)
    )
    return Rollout(problem=problem, response="The square is red.")
