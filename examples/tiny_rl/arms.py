"""The arms of the comparison: what is rewarded, how it becomes an advantage, and the controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from vrprm_reward.rewards.advantage import ESTIMATORS
from vrprm_reward.rewards.combine import DEFAULT_ADVANTAGE, DEFAULT_RULE, RewardRule, check_fit

Control = Literal["shuffled", "random"]
"""`shuffled`: the reward model looks at the picture of another problem. `random`: its step scores
change places with one another, over all steps of the update."""


@dataclass(frozen=True)
class Arm:
    """One way to reward a policy."""

    rule: RewardRule
    """What the steps of a rollout earn."""

    estimator: str
    """Name of the advantage rule in `vrprm_reward.rewards.advantage.ESTIMATORS`."""

    says: str
    """The arm in a few words."""

    control: Control | None = None
    """How the scores are spoilt, for the arms that must not work."""

    end_apart: bool = False
    """Whether the token that ends a response learns nothing, as it does not where steps are
    rewarded."""

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"no estimator {self.estimator!r}: choose one of {', '.join(ESTIMATORS)}"
            )
        check_fit(self.rule, self.estimator)


_RAW = RewardRule(combination="process", credit="raw")
_OWN = RewardRule(combination="process", credit="own")

ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "outcome": Arm(RewardRule(combination="outcome"), "leave_one_out", "outcome only"),
        "outcome_end_apart": Arm(
            RewardRule(combination="outcome"),
            "leave_one_out",
            "outcome only, but nothing for the token that ends a response",
            end_apart=True,
        ),
        "dense": Arm(_OWN, "same_step", "each step's own probability"),
        "outcome_dense": Arm(
            RewardRule(combination="sum", credit="own"),
            "same_step",
            "each step's own probability, and outcome",
        ),
        "process_grpo": Arm(_RAW, "process_grpo", "step probabilities, process-GRPO"),
        "raw_sum": Arm(_RAW, "leave_one_out", "sum of step probabilities, leave-one-out"),
        "min_form": Arm(
            RewardRule(combination="process", credit="min_form"), "leave_one_out", "PURE's min-form"
        ),
        "sound": Arm(
            DEFAULT_RULE,
            DEFAULT_ADVANTAGE,
            "smallest probability of a right answer, learnt from up to a wrong step: the adapters' "
            "default",
        ),
        "gated_running_min": Arm(
            RewardRule(combination="gated"),
            "leave_one_out",
            "smallest probability and outcome, nothing for a wrong answer",
        ),
        "gated_min_form": Arm(
            RewardRule(combination="gated", credit="min_form"),
            "leave_one_out",
            "min-form and outcome, nothing for a wrong answer",
        ),
        "outcome_min_form": Arm(
            RewardRule(combination="sum", credit="min_form"),
            "leave_one_out",
            "min-form and outcome",
        ),
        "ps_grpo": Arm(RewardRule(combination="ps_grpo"), "leave_one_out", "PS-GRPO's outcome"),
        "dense_shuffled": Arm(_OWN, "same_step", "as dense, another problem's picture", "shuffled"),
        "dense_random": Arm(_OWN, "same_step", "as dense, scores dealt out at random", "random"),
        "centred": Arm(
            RewardRule(combination="sum", credit="centred"),
            "leave_one_out",
            "2p - 1 per step, and outcome",
        ),
        "clip_delta": Arm(
            RewardRule(combination="sum", credit="clip_delta"),
            "leave_one_out",
            "clip and delta, and outcome",
        ),
        "outcome_gated_dense": Arm(
            RewardRule(combination="gated", credit="own"),
            "same_step",
            "as outcome_dense, but nothing for a wrong answer",
        ),
        "gated": Arm(
            RewardRule(combination="gated", credit="raw"),
            "leave_one_out",
            "step probabilities and outcome, if the outcome is right",
        ),
    }
)

COMPARED = (
    "outcome", "sound", "outcome_dense", "dense", "process_grpo", "dense_shuffled",
)  # fmt: skip
"""Those of the short comparison."""

SWEPT = (
    "outcome", "sound", "dense", "outcome_dense", "process_grpo", "raw_sum", "min_form",
    "gated_running_min", "gated_min_form", "outcome_min_form", "ps_grpo", "dense_shuffled",
    "dense_random",
)  # fmt: skip
"""All of the sweep."""

BY_NAME = ("outcome_end_apart",)
"""Asked for by name only: `compare --arm outcome_end_apart`."""
