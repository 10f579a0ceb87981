"""One reward for a whole response, for trainers that take no rewards per step."""

from dataclasses import replace

from vrprm_reward.rewards.aggregate import Aggregation, aggregate
from vrprm_reward.rewards.combine import (
    DEFAULT_RULE,
    SOUND_PREFIX,
    RewardRule,
    RolloutReward,
    outcome_reward,
    rollout_reward,
)
from vrprm_reward.rewards.outcome import Outcome
from vrprm_reward.types import ProcessScore, Step


def scalar_reward(
    score: ProcessScore,
    outcome: Outcome,
    rule: RewardRule = DEFAULT_RULE,
    aggregation: Aggregation = "min",
) -> RolloutReward:
    """`rollout_reward` with one reward: the response as a single step, as likely as its aggregate.

    `rule.credit` is not used, as the aggregation says what the steps are worth together. Under
    `ps_grpo` and `outcome` the aggregation is not used either. Under `sound` a right answer earns
    the aggregate, by default the smallest as anywhere else.

    Returns:
        A reward whose `rewards` has one number, or none for a rollout that is left out, and whose
        `p_correct` still has one for each step.
    """
    whole = rule.model_copy(update={"credit": "raw"})
    found = rollout_reward(score, outcome, whole)
    if found.status != "scored":
        return found
    if rule.combination in ("ps_grpo", "outcome"):
        rewards: tuple[float, ...] = (found.total,)
    else:
        single = ProcessScore(
            status="scored",
            steps=(Step(text="", start=0, end=0),),
            p_correct=(aggregate(score.p_correct, aggregation),),
        )
        rewards = (rollout_reward(single, outcome, whole).total,)
    return RolloutReward(
        found.status, (), rewards, found.p_correct, found.outcome, found.reason, found.detail
    )


def split_reward(
    score: ProcessScore,
    outcome: Outcome,
    rule: RewardRule = DEFAULT_RULE,
    advantage: str | None = None,
) -> tuple[RolloutReward, float]:
    """`rollout_reward` in two parts: what the steps earn, and what the whole response earns.

    For trainers that have a baseline of their own for a number per response. The parts add up to
    `rollout_reward(...).total`; a masked or unscorable rollout has nothing in the second part. But
    with the advantage rule `sound_prefix` what the steps earn only says how much is learnt from
    each, so there the second part is all of it, and the first is not to be added.
    """
    found = rollout_reward(score, outcome, rule)
    if advantage == SOUND_PREFIX:
        return found, found.total
    return replace(found, end=0.0), found.end


def split_outcome(outcome: Outcome, rule: RewardRule) -> tuple[RolloutReward, float]:
    """`split_reward` under a rule that needs no process scores: all is the whole response's."""
    whole = outcome_reward(outcome, rule)
    return outcome_reward(outcome, rule.model_copy(update={"outcome_weight": 0.0})), whole.total
