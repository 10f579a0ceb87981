"""One batch of experiences: what of ours it carries, and where that goes."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vrprm_openrlhf.dense import RAW, token_rewards, token_weights
from vrprm_openrlhf.errors import OpenRLHFError, StepRewardsError, UnscoredError
from vrprm_openrlhf.settings import TrainerSettings
from vrprm_openrlhf.wire import MASKED, POSITIONS, unpack, unpack_masked
from vrprm_reward.rewards.combine import SOUND_PREFIX


@dataclass
class BatchPlan:
    """What is added to a batch while OpenRLHF computes its advantages.

    Experiences are micro batches; `experience.index` holds the places of their rollouts in the
    whole batch, in which the rollouts of one prompt stand together.
    """

    experiences: Sequence[Any]
    masked: list[torch.Tensor]
    """For each experience, bool of shape (B,)."""

    added: list[torch.Tensor] | None
    """For each experience the token-level rewards, (B, A); None where none are added."""

    rule: str
    weights: list[torch.Tensor] | None = None
    """For each experience factors of the advantages, (B, A); None where there are none."""

    taken: set[int] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        experiences: Sequence[Any],
        args: Any,
        settings: Callable[[], TrainerSettings],
    ) -> "BatchPlan | None":
        """The plan for a batch, its keys taken out of `info`; None when it has nothing of ours.

        Raises:
            StepRewardsError: step rewards that are incomplete, or not where the policy wrote.
            UnscoredError: more rollouts are masked than the settings allow.
            OpenRLHFError: the estimator and the advantage rule do not fit.
        """
        if not any(POSITIONS in e.info or MASKED in e.info for e in experiences):
            return None
        chosen = settings()
        masked = [unpack_masked(e.info, len(e.index)) for e in experiences]
        _check_share(torch.cat(masked), chosen.max_masked_share)
        rows = [unpack(e.info, e.action_mask) for e in experiences]
        if all(row is None for row in rows):
            return cls(experiences, masked, None, RAW)
        if any(row is None for row in rows):
            raise StepRewardsError(
                "some micro batches have step rewards and others have none: one executor has to "
                "make all rollouts of a run"
            )
        _check_rule(args, chosen.advantage)
        flat = [
            None if out else row
            for outs, own in zip(masked, rows, strict=True)
            for out, row in zip(outs.tolist(), own or [], strict=True)
        ]
        masks = [mask for e in experiences for mask in e.action_mask]
        if chosen.advantage == SOUND_PREFIX:
            weights = _batched(token_weights(flat, masks), experiences)
            return cls(experiences, masked, None, chosen.advantage, weights)
        size = args.rollout.n_samples_per_prompt
        groups = [index // size for e in experiences for index in e.index]
        added = _batched(token_rewards(flat, masks, groups, chosen.advantage), experiences)
        return cls(experiences, masked, added, chosen.advantage)

    @contextlib.contextmanager
    def masked_tokens_out(self) -> Iterator[None]:
        """Inside, the action masks of masked rollouts are all zero."""
        whole = [e.action_mask for e in self.experiences]
        for experience, masked in zip(self.experiences, self.masked, strict=True):
            if masked.any():
                kept = (~masked).unsqueeze(1).to(experience.action_mask)
                experience.action_mask = experience.action_mask * kept
        try:
            yield
        finally:
            for experience, mask in zip(self.experiences, whole, strict=True):
                experience.action_mask = mask

    def take(self, action_mask: torch.Tensor, gamma: float) -> torch.Tensor:
        """The rewards to add for the experience with this action mask.

        Raises:
            StepRewardsError: no experience of the batch has it, or it was asked for before.
            OpenRLHFError: returns are discounted, and the rule's differences would not add up.
        """
        for index, experience in enumerate(self.experiences):
            if experience.action_mask is action_mask and index not in self.taken:
                self.taken.add(index)
                break
        else:
            raise StepRewardsError(
                "OpenRLHF computes returns for an action mask that is not one of this batch's, or "
                "twice for one: this version works in another way than those that are known"
            )
        if self.added is None:
            return torch.zeros_like(action_mask, dtype=torch.float32)
        if self.rule != RAW and gamma != 1:
            raise OpenRLHFError(
                f"step advantages need undiscounted returns, and --algo.advantage.gamma is {gamma}:"
                f" set it to 1, or VRPRM_OPENRLHF_ADVANTAGE={RAW}"
            )
        return self.added[index]

    def finish(self) -> None:
        """Weight the advantages, zero those of masked rollouts, see that all rewards were used.

        Raises:
            StepRewardsError: the step rewards of some experiences were not.
        """
        if len(self.taken) != len(self.experiences):
            raise StepRewardsError(
                f"OpenRLHF used the step rewards of {len(self.taken)} of {len(self.experiences)} "
                "micro batches: this version works in another way than those that are known"
            )
        if self.weights is not None:
            for experience, weights in zip(self.experiences, self.weights, strict=True):
                experience.advantages = experience.advantages * weights.to(experience.advantages)
        for experience, masked in zip(self.experiences, self.masked, strict=True):
            if masked.any():
                experience.advantages[masked] = 0
                # A critic learns from the returns; its own values teach it nothing.
                own = 0 if experience.values is None else experience.values[masked]
                experience.returns[masked] = own


def fill_masked(experiences: Sequence[Any], args: Any) -> None:
    """Give masked rollouts the mean scalar reward of the others of their group.

    The group is the whole batch for `flash_reinforce`, whose baseline is that. Where all of a group
    are masked, it is the batch, and without any other rollout 0.
    """
    masked = [unpack_masked(e.info, len(e.index)) for e in experiences]
    if not any(each.any() for each in masked):
        return
    order = torch.tensor(list(itertools.chain.from_iterable(e.index for e in experiences)))
    rewards = torch.empty(len(order), dtype=torch.float32)
    out = torch.empty(len(order), dtype=torch.bool)
    rewards[order] = torch.cat([e.rewards.float().reshape(-1) for e in experiences])
    out[order] = torch.cat(masked)
    rewards[out] = torch.nan
    whole = torch.nan_to_num(rewards.nanmean())
    if args.algo.advantage.estimator == "flash_reinforce":
        means = whole.expand(len(order))
    else:
        size = args.rollout.n_samples_per_prompt
        group = rewards.reshape(-1, size).nanmean(1, keepdim=True)
        means = torch.where(group.isnan(), whole, group).expand(-1, size).reshape(-1)
    for experience, mask in zip(experiences, masked, strict=True):
        if mask.any():
            own = means[torch.tensor(experience.index)].to(experience.rewards)
            shaped = mask.reshape(experience.rewards.shape)
            experience.rewards = torch.where(
                shaped, own.reshape(experience.rewards.shape), experience.rewards
            )
            if "reward" in experience.info:
                experience.info["reward"] = experience.rewards.clone()


def _batched(rows: Sequence[torch.Tensor], experiences: Sequence[Any]) -> list[torch.Tensor]:
    """Rows of a whole batch, (A,) each, as those of its experiences, (B, A)."""
    each = iter(rows)
    return [torch.stack(list(itertools.islice(each, len(e.index)))) for e in experiences]


def _check_share(masked: torch.Tensor, limit: float) -> None:
    share = float(masked.float().mean())
    if share > limit:
        raise UnscoredError(
            f"{int(masked.sum())} of {len(masked)} rollouts of this batch could not be scored, "
            f"more than VRPRM_OPENRLHF_MAX_MASKED_SHARE = {limit} allows: the rollout workers' "
            "logs name the reasons; mend the reward server, then resume"
        )


def _check_rule(args: Any, rule: str) -> None:
    estimator = args.algo.advantage.estimator
    if rule == SOUND_PREFIX:
        return  # the baseline is OpenRLHF's own
    if estimator == "gae" and rule != RAW:
        raise OpenRLHFError(
            f"--algo.advantage.estimator gae has a critic for its baseline, so the step advantages "
            f"of {rule!r} would have two: set VRPRM_OPENRLHF_ADVANTAGE={RAW}"
        )
    if rule != RAW and args.rollout.n_samples_per_prompt < 2:
        raise OpenRLHFError(
            f"{rule} compares the rollouts of a prompt, and "
            "--rollout.n_samples_per_prompt is 1: raise it, or set "
            f"VRPRM_OPENRLHF_ADVANTAGE={RAW}"
        )
