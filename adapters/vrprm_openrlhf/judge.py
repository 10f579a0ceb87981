"""What one rollout of OpenRLHF earns: asked for, checked, and written as its numbers."""

import asyncio
import time
from statistics import fmean
from typing import NamedTuple

from vrprm_openrlhf.errors import UnscoredError
from vrprm_openrlhf.settings import PREFIX, Settings
from vrprm_openrlhf.wire import MASKED
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.images import ImageSettings
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.rewards.combine import RewardRule, RolloutReward, outcome_reward
from vrprm_reward.rewards.masked_share import MaskedShare
from vrprm_reward.rewards.outcome import Outcome, OutcomeCheck, load_outcome
from vrprm_reward.rewards.scalar import scalar_reward, split_outcome, split_reward
from vrprm_reward.types import ProcessScore, Rollout

UNDECIDED = 0.5
"""The `filter_score` of a rollout of which nothing is known."""


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

    rule: RewardRule
    """The rule that it was rewarded by."""

    def numbers(self) -> dict[str, float]:
        """For `extra_logs`: the same keys for every rollout, because OpenRLHF needs that.

        As from the reward server, means and steps of unscored rollouts are 0; so is an outcome that
        is not known, and `vrprm_outcome_known` tells it from a wrong one.
        """
        p = () if self.score is None else self.score.p_correct
        return {
            "vrprm_unscored": float(self.score is not None and not self.score.scored),
            MASKED: float(self.reward.masked),
            "vrprm_mean_p": fmean(p) if p else 0.0,
            "vrprm_min_p": min(p) if p else 0.0,
            "vrprm_steps": float(len(p)),
            "vrprm_outcome": self.outcome or 0.0,
            "vrprm_outcome_known": float(self.outcome is not None),
            "vrprm_seconds": self.seconds,
        }

    @property
    def filter_score(self) -> float:
        """For `scores`, which OpenRLHF's dynamic filtering reads: what the run is trained on.

        That is the outcome, if the rule needs it; else the scalar. A dense run has nothing in its
        scalar then; there it is the mean probability of the steps, lest every group be filtered out
        as one without differences.

        OpenRLHF keeps a group whose mean lies inside a range, (0, 1) unless set otherwise. A masked
        rollout of which nothing is known is put in the middle, where it never moves a mean out of
        the range; at worst a group is kept that teaches nothing. As 0 it would be a wrong answer;
        NaN would drop the other responses with it, and stand in the logged means; with None,
        OpenRLHF fails when it joins the group's tensors.
        """
        if self.rule.needs_outcome and self.outcome is not None:
            return self.outcome
        if self.reward.masked:
            return UNDECIDED
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
        self._masked_share = MaskedShare(settings.max_masked_share, f"{PREFIX}MAX_MASKED_SHARE")

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
                reward, scalar = split_reward(score, outcome, rule, self._settings.advantage)
            else:
                reward = scalar_reward(score, outcome, rule, self._settings.aggregation)
                scalar = reward.total
        seconds = time.monotonic() - started
        return self._passed(Judged(score, reward, scalar, outcome.value, seconds, rule))

    def unscored(self, reason: str, detail: str) -> Judged:
        """A rollout that cannot even be asked about, and why. Raises as `ajudge` does."""
        score = ProcessScore(status="unscored_ours", reason=reason, detail=detail)
        rule = self._settings.rule
        reward = scalar_reward(score, Outcome(None, "off"), rule)
        return self._passed(Judged(score, reward, 0.0, None, 0.0, rule))

    def _passed(self, judged: Judged) -> Judged:
        reward = judged.reward
        if wrong := self._masked_share.count([reward]):
            raise UnscoredError(wrong)
        if not reward.masked or self._masks:
            return judged
        if self._settings.unscored_reward is None:
            raise UnscoredError(
                f"a rollout could not be scored ({reward.reason}: {reward.detail}), and without "
                f"the hook it cannot be left out: install the hook (docs/openrlhf.md), or set "
                f"{PREFIX}UNSCORED_REWARD to what it shall be worth"
            )
        return judged._replace(scalar=self._settings.unscored_reward)


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
