"""Advantages per step for verl: its reward tensors -> the rules of `vrprm_reward.rewards`.

An estimator gets nothing but the reward tensor, the response mask and the names of the groups. A
step's reward stands on its last token, and what the end earns on the last token of the response;
whatever is not exactly 0 is one (see `row.VISIBLE_ZERO`). A row of exact zeros was masked: it gets
no advantage and no part in any statistic. A row whose mask is all zeros is verl's own padding.
"""

import functools
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from vrprm_reward.errors import InputError, VRPRMError
from vrprm_reward.rewards.advantage import ESTIMATORS, Estimator, to_tokens
from vrprm_verl.row import VISIBLE_ZERO
from vrprm_verl.settings import algorithm_settings

_log = logging.getLogger(__name__)

PREFIX = "vrprm_"
"""`algorithm.adv_estimator` is this and the name of a rule, such as `vrprm_leave_one_out`."""

NAMES = tuple(PREFIX + name for name in ESTIMATORS)


class MaskedShareError(VRPRMError):
    """Too many rollouts of a batch could not be scored: the run stops rather than learns of few."""

    code = "masked_share"


def step_rewards_of(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor
) -> tuple[list[torch.Tensor | None], list[list[int]], list[float]]:
    """The rewards of each row's steps, the tokens that they stand on, and what the end earns.

    Args:
        token_level_rewards: (bs, response_len).
        response_mask: (bs, response_len), 1 where the policy wrote the token.

    Returns:
        For each row a tensor (K,), or None for a masked or padding row; K token indices; and what
        stands on the last token, unless that is the only reward: a response as one step.
    """
    found: list[torch.Tensor | None] = []
    tokens: list[list[int]] = []
    ends: list[float] = []
    for rewards, mask in zip(token_level_rewards, response_mask, strict=True):
        places = ((rewards != 0) & mask.bool()).nonzero().flatten()
        values = rewards[places]
        values = torch.where(values == VISIBLE_ZERO, torch.zeros_like(values), values)
        apart = len(places) > 1 and not mask[int(places[-1]) + 1 :].any()
        steps = len(places) - apart
        found.append(values[:steps] if len(places) else None)
        tokens.append(places[:steps].tolist())
        ends.append(float(values[-1]) if apart else 0.0)
    return found, tokens, ends


def make_estimator(
    rule: Estimator,
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """A rule of `vrprm_reward.rewards.advantage` as verl calls its estimators."""

    @functools.wraps(rule)
    def estimate(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: Sequence[Hashable] | None = None,
        config: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        config = config or {}
        if config.get("use_kl_in_reward"):
            raise InputError(
                "algorithm.use_kl_in_reward=True subtracts a penalty from every token's reward, so "
                "that steps cannot be told from other tokens: set it to False and use "
                "actor_rollout_ref.actor.use_kl_loss=True"
            )
        if index is None:
            raise InputError("verl passed no uid: the groups of the rollouts are not known")
        rewards, tokens, ends = step_rewards_of(token_level_rewards, response_mask)
        _check_masked(rewards, response_mask, config)
        advantages = torch.zeros_like(token_level_rewards)
        for row, found in enumerate(rule(rewards, list(index), ends)):
            if found is not None:
                advantages[row] = to_tokens(found, tokens[row], response_mask[row])
        return advantages, advantages

    return estimate


def _check_masked(
    rewards: Sequence[torch.Tensor | None], response_mask: torch.Tensor, config: Mapping[str, Any]
) -> None:
    real = response_mask.bool().any(dim=-1).tolist()
    count = sum(real)
    masked = sum(is_real and row is None for is_real, row in zip(real, rewards, strict=True))
    limit = algorithm_settings(config.get("vrprm")).max_masked_share
    if masked > limit * count:
        raise MaskedShareError(
            f"{masked} of {count} rollouts of this batch have no score, a share of "
            f"{masked / count:.2g}, more than algorithm.vrprm.max_masked_share = {limit:g} allows: "
            "grep the logs of the reward workers for 'a rollout has no score (REASON)'. "
            "outcome_no_reference means data without answers: give them, or set "
            "+reward.vrprm.combination=process; server_* means the reward server: look at its "
            "/ready and /metrics"
        )
    if masked:
        _log.warning("%d of %d rollouts have no score and are left out of this step", masked, count)


def register() -> None:
    """Make the estimators known to verl in this process."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

    for name, rule in ESTIMATORS.items():
        if PREFIX + name not in ADV_ESTIMATOR_REGISTRY:
            register_adv_est(PREFIX + name)(make_estimator(rule))
