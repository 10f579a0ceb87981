"""What one rollout of OpenRLHF earns: asked for, checked, and written as its numbers."""

import asyncio
import threading
import time
from collections import deque
from statistics import fmean
from typing import NamedTuple

from vrprm_openrlhf.errors import UnscoredError
from vrprm_openrlhf.settings import PREFIX, Settings
from vrprm_openrlhf.wire import MASKED
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.images import ImageSettings
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.rewards.combine import RolloutReward, outcome_reward
from vrprm_reward.rewards.outcome import Outcome, OutcomeCheck, load_outcome
from vrprm_reward.rewards.scalar import scalar_reward, split_outcome, split_reward
from vrprm_reward.types import ProcessScore, Rollout

WINDOW, FEWEST = 64, 16
"""Rollouts that the share of unscored ones is taken of, and how many there have to be."""


class Judged(NamedTuple):
    """A rollout with what it earned."""

    score: ProcessScore | None
    """What the reward model says; None under a rule that does not ask it."""

    reward: RolloutReward
    """What the steps earn (dense), or the response as one step (scalar)."""

    scalar: float
    """What OpenRLHF gets as `reward`."""

    outcome: float | None
    """Whether the final answer is right, if that is known."""

    seconds: float
    """How long it took."""

    def numbers(self) -> dict[str, float]:
        """For `extra_logs`: the same keys for every rollout, because OpenRLHF needs that.

        As from the reward server, means and steps of unscored rollouts are 0.
        """
        p = () if self.score is None else self.score.p_correct
        return {
            "vrprm_unscored": float(self.score is not None and not self.score.scored),
            MASKED: float(self.reward.masked),
            "vrprm_mean_p": fmean(p) if p else 0.0,
            "vrprm_min_p": min(p) if p else 0.0,
            "vrprm_steps": float(len(p)),
            "vrprm_outcome": self.outcome or 0.0,
            "vrprm_seconds": self.seconds,
        }

    @property
    def filter_score(self) -> float:
        """For `scores`, which OpenRLHF's dynamic filtering reads: the outcome where it is known.

        A dense run without outcomes has nothing in its scalar; there it is the mean probability of
        the steps, lest every group be filtered out as one without differences.
        """
        if self.outcome is not None:
            return self.outcome
        return fmean(self.reward.p_correct) if self.reward.steps else self.scalar


class Judge:
    """Scores rollouts one by one, many at a time, under the settings of this process.

    Args:
        settings: limits, rules, and where the server is.
        masks: whether masked rollouts reach a trainer that leaves them out (the hook is installed).
        reward: what scores steps; None: the server of the settings.
        outcome: what checks final answers; None: that of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        masks: bool,
        reward: ProcessReward | None = None,
        outcome: OutcomeCheck | None = None,
    ) -> None:
        self._settings = settings
        self._masks = masks
        self._reward = reward if reward is not None else _remote(settings)
        self._outcome = outcome or load_outcome(settings.outcome, timeout=settings.outcome_seconds)
        self._gate = _Gate(settings.max_masked_share)

    async def ajudge(self, rollout: Rollout) -> Judged:
        """Score a rollout and check its answer.

        Raises:
            UnscoredError: it could not be scored and the settings have no reward for that, or too
                many could not.
            ServerRefusedError: the server refuses whatever is asked.
        """
        started = time.monotonic()
        rule, dense = self._settings.rule, self._settings.mode == "dense"
        check = self._outcome.acheck(rollout.response, rollout.problem.reference_answer)
        score: ProcessScore | None = None
        if not rule.needs_process:
            outcome = await check
            reward, scalar = split_outcome(outcome, rule)
            reward = reward if dense else outcome_reward(outcome, rule)
        else:
            (score,), outcome = await asyncio.gather(self._reward.ascore([rollout]), check)
            if dense:
                reward, scalar = split_reward(score, outcome, rule)
            else:
                reward = scalar_reward(score, outcome, rule, self._settings.aggregation)
                scalar = reward.total
        seconds = time.monotonic() - started
        return self._passed(Judged(score, reward, scalar, outcome.value, seconds))

    def unscored(self, reason: str, detail: str) -> Judged:
        """A rollout that cannot even be asked about, and why. Raises as `ajudge` does."""
        score = ProcessScore(status="unscored_ours", reason=reason, detail=detail)
        reward = scalar_reward(score, Outcome(None, "off"), self._settings.rule)
        return self._passed(Judged(score, reward, 0.0, None, 0.0))

    def _passed(self, judged: Judged) -> Judged:
        reward = judged.reward
        self._gate.count(reward)
        if not reward.masked or self._masks:
            return judged
        if self._settings.unscored_reward is None:
            raise UnscoredError(
                f"a rollout could not be scored ({reward.reason}: {reward.detail}), and without "
                f"the hook it cannot be left out: install the hook (docs/openrlhf.md), or set "
                f"{PREFIX}UNSCORED_REWARD to what it shall be worth"
            )
        return judged._replace(scalar=self._settings.unscored_reward)


class _Gate:
    """Stops a run in which too many rollouts cannot be scored. Threads may share it."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._last: deque[bool] = deque(maxlen=WINDOW)

    def count(self, reward: RolloutReward) -> None:
        with self._lock:
            self._last.append(reward.masked)
            failed, seen = sum(self._last), len(self._last)
        if reward.masked and seen >= FEWEST and failed > self._limit * seen:
            raise UnscoredError(
                f"{failed} of the last {seen} rollouts could not be scored, more than "
                f"{PREFIX}MAX_MASKED_SHARE = {self._limit} allows; the last one: {reward.reason}: "
                f"{reward.detail}"
            )


def _remote(settings: Settings) -> ProcessReward:
    hosts = settings.url_hosts
    return RemoteProcessReward(
        settings.url,
        token=settings.token,
        timeout=settings.timeout,
        total_timeout=settings.total_timeout,
        max_concurrency=settings.max_concurrency,
        images=ImageSettings(allow_urls=bool(hosts), url_hosts=hosts),
    )
