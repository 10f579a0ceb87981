"""What a rollout earns: its process scores and its outcome -> one reward for each step.

This is the one place that says what unscored rollouts are worth; adapters only carry it on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.credit import RULES, CreditRule, credit, ps_grpo
from vrprm_reward.rewards.outcome import Outcome
from vrprm_reward.types import ProcessScore, Status, Step

Combination = Literal["sound", "gated", "sum", "process", "outcome", "ps_grpo"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)


_BELOW_NOTHING: tuple[CreditRule, ...] = ("centred", "clip", "clip_delta")
"""Credits whose sum over doubtful steps is below 0."""


class RewardRule(BaseModel):
    """How process scores and an outcome become the rewards of the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combination: Combination = "sound"
    """`sound`: together, a right answer earns outcome_weight times the outcome times the smallest
    probability of its steps, and a wrong one (below 0.5) nothing. Every step earns its credit,
    `running_min`, when it is written, and the end what is missing, or takes back what is too much:
    the running minimum is the potential of a shaping that changes no best policy (Ng et al. 1999,
    "Policy invariance under reward transformations").
    `gated`: if the outcome is right, every step earns process_weight times its credit, and the
    end outcome_weight times the outcome; if it is wrong (below 0.5), nothing is earned.
    Refuses the credits `centred`, `clip` and `clip_delta`, under which a right answer could earn
    less than nothing. `sum`: the same whatever the outcome, so that wrong answers are paid for
    what the judge likes in them.
    `process`: no outcome, which policies learn to exploit (PURE, arXiv 2504.15275). `outcome`:
    only the outcome, at the end. `ps_grpo`: PS-GRPO's number at the end, an outcome that is cut
    where the process scores fall (URSA, arXiv 2501.04686)."""

    credit: CreditRule = "running_min"
    """What a step earns by its probability. By default all steps together earn the smallest:
    more sure steps do not raise it, but to leave out a doubtful one does. `sound` takes no other.
    """

    process_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the process part; 1 under `sound`, where what steps earn are probabilities."""

    outcome_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the outcome part."""

    ps_gamma: float = Field(default=0.5, ge=0, le=1)
    """What a right answer loses under `ps_grpo` when the process scores fall."""

    ps_rho: float = Field(default=0.3, gt=0)
    """The relative fall from which on it loses that."""

    unscorable_reward: float | None = Field(default=None, allow_inf_nan=False)
    """What a response earns that made itself unscorable; None: the least that a single step
    can earn. `centred` and `clip` add up over steps without a lower bound, so there a number
    well below that keeps many wrong steps from being worse than nothing to judge."""

    @model_validator(mode="after")
    def _a_right_answer_earns_no_less_than_a_wrong_one(self) -> Self:
        if self.combination == "gated" and self.credit in _BELOW_NOTHING:
            raise ValueError(
                f"under the combination 'gated' a wrong answer earns 0, and with the credit "
                f"{self.credit!r} a right one on doubtful steps would earn less: set "
                "combination=sum, or another credit"
            )
        return self

    @model_validator(mode="after")
    def _sound_is_made_of_the_smallest_probability(self) -> Self:
        if self.combination == "sound" and self.credit != "running_min":
            raise ValueError(
                f"the combination 'sound' pays the smallest probability, and the credit is "
                f"{self.credit!r}: leave credit=running_min, or set combination=gated"
            )
        if self.combination == "sound" and self.process_weight != 1:
            raise ValueError(
                f"under the combination 'sound' steps earn probabilities, and process_weight is "
                f"{self.process_weight!r}: leave it at 1, or set outcome_weight, which scales all "
                "that is earned"
            )
        return self

    @property
    def needs_outcome(self) -> bool:
        """Whether a rollout without a known outcome has no reward."""
        return self.combination != "process"

    @property
    def needs_process(self) -> bool:
        """Whether a rollout without process scores has no reward."""
        return self.combination != "outcome"

    @property
    def lowest(self) -> float:
        """What a response earns that made itself unscorable."""
        if self.unscorable_reward is not None:
            return self.unscorable_reward
        if self.combination in ("outcome", "ps_grpo"):
            return 0.0
        return self.process_weight * RULES[self.credit].lowest


DEFAULT_RULE = RewardRule()

SOUND_PREFIX: Literal["sound_prefix"] = "sound_prefix"
"""The advantage rule of the combination `sound`, in `vrprm_reward.rewards.advantage`."""

DEFAULT_ADVANTAGE = SOUND_PREFIX
"""The advantage rule that goes with the default rule."""

_MADE_FOR: Mapping[CreditRule, str] = MappingProxyType(
    {
        "own": "same_step",
        "running_min": "leave_one_out",
        "delta": "leave_one_out",
        "clip_delta": "leave_one_out",
    }
)
_INSTEAD: Mapping[tuple[CreditRule, str], CreditRule] = MappingProxyType(
    {
        ("own", "leave_one_out"): "running_min",
        ("own", "group_mean"): "running_min",
        ("own", "process_grpo"): "raw",
        ("running_min", "process_grpo"): "raw",
        ("delta", "process_grpo"): "raw",
        ("clip_delta", "process_grpo"): "raw",
    }
)


def advantage_for(rule: RewardRule) -> str:
    """Name of the advantage rule that step rewards by `rule` are made for."""
    if rule.combination == "sound":
        return SOUND_PREFIX
    if rule.combination in ("outcome", "ps_grpo"):
        return "leave_one_out"
    return _MADE_FOR.get(rule.credit, "leave_one_out")


_RETURNS_COMPARED = ("leave_one_out", "same_step", "process_grpo", "group_mean")
"""Advantage rules that compare returns-to-go, or totals, of rollouts with one another."""


def check_fit(rule: RewardRule, estimator: str) -> None:
    """Whether step rewards by `rule` mean what an advantage rule takes them for.

    The credits `own`, `running_min`, `delta` and `clip_delta` are made of differences: normalised
    over a group they are no scores. The sum of `own` is the first step's probability, which says
    nothing of a response. (So is that of `delta`, which is taken as it was published.)
    `sound_prefix` reads the soundness of a response off the rewards of `sound`, and nothing else
    has it; with the other rules here, what `sound` hands out before the end makes for more steps.

    Raises:
        InputError: they do not fit; says what does.
    """
    if rule.combination == "sound" and estimator in _RETURNS_COMPARED:
        raise InputError(
            f"the combination 'sound' is made for the advantage rule {SOUND_PREFIX!r}, and "
            f"this is {estimator!r}: set that one, or combination=gated"
        )
    if rule.combination != "sound" and estimator == SOUND_PREFIX:
        raise InputError(
            f"the advantage rule {SOUND_PREFIX!r} is made for the combination 'sound', and "
            f"this is {rule.combination!r}: set combination=sound, or another advantage rule, such "
            "as 'leave_one_out'"
        )
    better = _INSTEAD.get((rule.credit, estimator))
    if better is None or rule.combination in ("outcome", "ps_grpo"):
        return
    made_for = _MADE_FOR[rule.credit]
    raise InputError(
        f"the credit {rule.credit!r} is made for the advantage rule {made_for!r}; with "
        f"{estimator!r} its step rewards mean something else: set credit={better}, or the "
        f"advantage rule {made_for!r}"
    )


@dataclass(frozen=True)
class RolloutReward:
    """What one rollout earned, and why. Plain numbers, so that any adapter can carry it."""

    status: Status
    """`scored`; `unscored_response`: has the rule's lowest reward; `unscored_ours`: to be left out
    of the training step."""

    steps: tuple[Step, ...]
    """The steps that `rewards` belong to; empty unless scored."""

    rewards: tuple[float, ...]
    """One for each step; a single one, without steps, for a response that is rewarded as a whole
    (`outcome_reward`, an unscorable one); none to be left out."""

    p_correct: tuple[float, ...]
    """Per step, the probability that it is correct."""

    outcome: float | None
    """Whether the final answer is right, in [0, 1]; None when it is not known."""

    reason: str | None = None
    """Why there is no score, or no outcome where one was needed; a stable short name."""

    detail: str | None = None
    """The reason in a sentence."""

    end: float = 0.0
    """What the end of a response with steps earns, on top of them: the outcome's part, or less than
    0 where what the steps earned is taken back. Not the last step's: whether to write another step
    is decided after it."""

    @property
    def masked(self) -> bool:
        """Whether the rollout is to be left out of the training step and its statistics."""
        return self.status == "unscored_ours"

    @property
    def total(self) -> float:
        """The sum of the rewards, the end's included; 0 for a rollout that is left out."""
        return float(sum(self.rewards)) + self.end


def rollout_reward(
    score: ProcessScore, outcome: Outcome, rule: RewardRule = DEFAULT_RULE
) -> RolloutReward:
    """Apply a rule to one rollout.

    An `unscored_ours` score, or an outcome that the rule needs and that is not known, gives a
    masked rollout: never a number. A response that made itself unscorable gets `rule.lowest`
    whatever its outcome, so that a policy gains nothing by it.
    """
    if score.status == "unscored_response":
        return RolloutReward(
            score.status, (), (rule.lowest,), (), outcome.value, score.reason, score.detail
        )
    if score.status == "unscored_ours":
        return _masked(score.p_correct, outcome, score.reason, score.detail)
    if rule.needs_outcome and outcome.value is None:
        return _masked(score.p_correct, outcome, f"outcome_{outcome.reason}", outcome.detail)
    rewards, end = step_rewards(score.p_correct, outcome, rule)
    return RolloutReward(
        "scored",
        score.steps,
        tuple(rewards),
        score.p_correct,
        outcome.value,
        outcome.reason,
        end=end,
    )


def outcome_reward(outcome: Outcome, rule: RewardRule = DEFAULT_RULE) -> RolloutReward:
    """The reward of a whole response without process scores: outcome_weight times the outcome."""
    if outcome.value is None:
        return _masked((), outcome, f"outcome_{outcome.reason}", outcome.detail)
    rewards = (rule.outcome_weight * outcome.value,)
    return RolloutReward("scored", (), rewards, (), outcome.value, outcome.reason)


def _masked(
    p_correct: tuple[float, ...], outcome: Outcome, reason: str | None, detail: str | None
) -> RolloutReward:
    return RolloutReward("unscored_ours", (), (), p_correct, outcome.value, reason, detail)


def step_rewards(
    p_correct: Sequence[float], outcome: Outcome, rule: RewardRule
) -> tuple[list[float], float]:
    """The rewards of K >= 1 steps under a rule, and what the end earns.

    Raises:
        ValueError: no steps, a probability outside [0, 1], or an unknown outcome that is needed.
    """
    if not p_correct:
        raise ValueError("there are no steps to reward: leave unscored rollouts out")
    process = [rule.process_weight * value for value in credit(p_correct, rule.credit)]
    if rule.combination == "process":
        return process, 0.0
    if outcome.value is None:
        raise ValueError(f"the combination {rule.combination!r} needs an outcome")
    if rule.combination == "sound":
        right = rule.outcome_weight * outcome.value * min(p_correct) if outcome.right else 0.0
        return process, right - sum(process)
    nothing = [0.0] * len(p_correct)
    if rule.combination == "ps_grpo":
        whole = ps_grpo(p_correct, outcome.right, gamma=rule.ps_gamma, rho=rule.ps_rho)
        return nothing, rule.outcome_weight * whole
    if rule.combination == "gated" and not outcome.right:
        return nothing, 0.0
    end = rule.outcome_weight * outcome.value
    return (nothing if rule.combination == "outcome" else process), end
