"""Advantages per step from step rewards, within groups of responses to the same problem.

Notation: rollout i of a group has the rewards r_i1 .. r_iK of its K_i steps, a float tensor of
shape (K_i,), and e_i, what it earns with its end (`ends`, 0 where not given). A
rollout that is not to be learnt from is None: it gets None and is left out of every statistic. The
return-to-go at step k is G_ik = r_ik + ... + r_iK + e_i, and at its end, place K_i + 1, it is e_i.

To go on or to end is a choice of the policy like any other, so every rule gives K_i + 1 advantages,
float of shape (K_i + 1,): of the steps, and of the end.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch

StepRewards = Sequence[torch.Tensor | None]
StepAdvantages = list[torch.Tensor | None]
Ends = Sequence[float] | None


def return_to_go(rewards: torch.Tensor) -> torch.Tensor:
    """G_k for every step of one rollout: shape (K,), the dtype of `rewards`."""
    return rewards.flip(0).cumsum(0).flip(0)


def leave_one_out(
    rewards: StepRewards, groups: Sequence[Hashable], ends: Ends = None
) -> StepAdvantages:
    """G_ik minus the mean of G_jk over the other rollouts j of the group, at steps and at the end.

    A rollout that has ended before place k counts there with e_j. So the baseline knows nothing of
    the rollout's own actions, its number of steps included, and the gradient is that of what is
    earned (RLOO: Ahmadian et al. 2024, arXiv 2402.14740, carried over to steps) as long as no
    reward depends on what is written after it: with an outcome in the last step's reward instead
    of in `ends`, going on would earn it and ending would not. A rollout without others has no
    baseline and gets 0.

    [[1, 1, 1, 1], [1, 0, 0, 0]] gives [3, 3, 2, 1, 0] and [-3, -3, -2, -1, 0].
    """
    found: StepAdvantages = [None] * len(rewards)
    for members in _members(rewards, groups).values():
        returns = [_returns(rewards, i, ends) for i in members]
        longest = max(map(len, returns))
        filled = torch.stack([torch.cat([g, g[-1:].expand(longest - len(g))]) for g in returns])
        baselines = (filled.sum(0) - filled) / max(1, len(members) - 1)
        for i, own, baseline in zip(members, returns, baselines, strict=True):
            alone = len(members) == 1
            found[i] = torch.zeros_like(own) if alone else own - baseline[: len(own)]
    return found


def sound_prefix(
    rewards: StepRewards, groups: Sequence[Hashable], ends: Ends = None
) -> StepAdvantages:
    """What rollout i earns minus the mean of what the others of its group earn, times w_ik.

    For the combination `sound`, whose steps earn r_i1 = m_i1 and r_ik = m_ik - m_i,k-1, with m_ik
    the smallest probability of the steps up to k. So the weight of a step is w_ik = m_i,k-1, the
    smallest of those before it (1 at the first step), and that of the end m_iK: what is written
    behind a wrong step is hardly learnt from, whether its answer comes out right by luck or not,
    and what was written before is credited with the end. What a rollout earns is G_i1. A rollout
    without others gets 0.

    [0.9, -0.8, 0] with the end 0, which earn 0.1, and [0.9, 0] with the end -0.9, which earn
    nothing, give [0.1, 0.09, 0.01, 0.01] and [-0.1, -0.09, -0.09].
    """
    found: StepAdvantages = [None] * len(rewards)
    for members in _members(rewards, groups).values():
        earned = torch.stack([_returns(rewards, i, ends)[0] for i in members])
        others = (earned.sum() - earned) / max(1, len(members) - 1)
        advantages = earned - others if len(members) > 1 else torch.zeros_like(earned)
        for i, advantage in zip(members, advantages, strict=True):
            found[i] = advantage * prefix_weights(_row(rewards, i))
    return found


def prefix_weights(rewards: torch.Tensor) -> torch.Tensor:
    """The smallest probability before each step and the end, from what steps earn under `sound`.

    Shape (K,) -> (K + 1,), in [0, 1], the dtype of `rewards`. See `sound_prefix`.
    """
    return torch.cat([rewards.new_ones(1), rewards.cumsum(0)]).clamp(0, 1)


def process_grpo(
    rewards: StepRewards, groups: Sequence[Hashable], ends: Ends = None
) -> StepAdvantages:
    """Return-to-go of step rewards that were normalised over all steps of the group.

    DeepSeekMath: Shao et al. 2024, arXiv 2402.03300, section 4.1.3. What is earned at ends is
    normalised over the rollouts of the group, as there in 4.1.2. Groups whose rewards are
    all alike get 0 (the spread is that of the sample, as `torch.std` gives it). Several steps
    above the mean add up, so the number of steps enters; `same_step` avoids that.
    """
    found: StepAdvantages = [None] * len(rewards)
    for members in _members(rewards, groups).values():
        rows = [_row(rewards, i) for i in members]
        steps = torch.split(_normalised(torch.cat(rows)), [len(row) for row in rows])
        last = _normalised(torch.stack([_end(rewards, i, ends) for i in members]))
        for i, row, end in zip(members, steps, last, strict=True):
            found[i] = return_to_go(torch.cat([row, end[None]]))
    return found


def same_step(
    rewards: StepRewards, groups: Sequence[Hashable], ends: Ends = None
) -> StepAdvantages:
    """G_ik minus the mean of G_jk over the other rollouts j of the group that have a step k.

    As `leave_one_out`, but what a step is compared with is what others wrote in its place: a
    rollout that has ended by then is no part of the mean. A step that no other rollout has gets 0,
    and so does the end, so that nothing is gained, or lost, by more steps than the others have.

    [[1, 1, 1], [1, 0]] gives [2, 1, 0, 0] and [-2, -2, 0].
    """
    found: StepAdvantages = [None] * len(rewards)
    for members in _members(rewards, groups).values():
        returns = [_returns(rewards, i, ends)[:-1] for i in members]
        padded = torch.nn.utils.rnn.pad_sequence(returns, batch_first=True)
        there = torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(row) for row in returns], batch_first=True
        )
        others = there.sum(0) - there
        baseline = (padded.sum(0) - padded) / others.clamp(min=1)
        advantages = torch.where(others > 0, padded - baseline, torch.zeros_like(padded))
        for i, row, advantage in zip(members, returns, advantages, strict=True):
            found[i] = torch.cat([advantage[: len(row)], row.new_zeros(1)])
    return found


def outcome_gated(
    rewards: StepRewards, groups: Sequence[Hashable], outcomes: Sequence[float]
) -> StepAdvantages:
    """Normalised outcome plus, among right responses only, the normalised mean step reward.

    PAPO: arXiv 2603.26535. `outcomes` are 1 for a right final answer and 0 otherwise; every step of
    a rollout, and its end, gets the same advantage. Groups without spread get 0 for that part.
    """
    found: StepAdvantages = [None] * len(rewards)
    for members in _members(rewards, groups).values():
        first = _row(rewards, members[0])
        outcome = first.new_tensor([outcomes[i] for i in members])
        total = _normalised(outcome)
        right = outcome >= 0.5
        if right.sum() > 1:
            means = torch.stack([_row(rewards, i).mean() for i in members])
            total[right] += _normalised(means[right])
        for i, value in zip(members, total, strict=True):
            found[i] = value.expand(len(_row(rewards, i)) + 1).clone()
    return found


def group_mean(
    rewards: StepRewards, groups: Sequence[Hashable], ends: Ends = None
) -> StepAdvantages:
    """One number per rollout: its summed reward, normalised over the group. GRPO's own rule.

    Shao et al. 2024, arXiv 2402.03300, section 4.1.2. For comparison: it forgets where in the
    response a reward was earned.
    """
    found: StepAdvantages = [None] * len(rewards)
    for members in _members(rewards, groups).values():
        totals = _normalised(torch.stack([_returns(rewards, i, ends)[0] for i in members]))
        for i, value in zip(members, totals, strict=True):
            found[i] = value.expand(len(_row(rewards, i)) + 1).clone()
    return found


class Estimator(Protocol):
    """An advantage rule that needs nothing but rewards and groups."""

    def __call__(
        self, rewards: StepRewards, groups: Sequence[Hashable], ends: Ends = None
    ) -> StepAdvantages:
        """Advantages of the steps of each rollout and of its end, (K_i + 1,), or None."""
        ...


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "sound_prefix": sound_prefix,
        "leave_one_out": leave_one_out,
        "same_step": same_step,
        "process_grpo": process_grpo,
        "group_mean": group_mean,
    }
)
"""The estimators by name."""


def to_tokens(advantages: torch.Tensor, tokens: Sequence[int], mask: torch.Tensor) -> torch.Tensor:
    """Spread the advantages of one rollout's steps and of its end over its tokens.

    `advantages` has shape (K + 1,), `tokens` holds the index of each step's last token, and `mask`,
    of shape (T,), is 1 where the policy wrote the token. All tokens up to a step's last one, from
    behind the step before it, carry the step's advantage. Where several steps end in one token, it
    carries the first one's. What follows the last step (the token that ends the response) carries
    the end's. Returns a tensor of shape (T,), 0 wherever the mask is. Raises `ValueError` for
    another number of advantages.
    """
    if len(advantages) != len(tokens) + 1:
        raise ValueError(
            f"{len(advantages)} advantages for {len(tokens)} steps: there has to be one for each "
            "and one for the end, as the estimators give them"
        )
    ends = torch.tensor(tokens, dtype=torch.long, device=advantages.device)
    places = torch.arange(mask.shape[0], device=advantages.device)
    return advantages[torch.searchsorted(ends, places)] * mask.to(advantages)


def _members(rewards: StepRewards, groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Indices of the rollouts to learn from, by group. Raises `ValueError`."""
    if len(rewards) != len(groups):
        raise ValueError(f"{len(rewards)} rollouts but {len(groups)} group names")
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index, (row, group) in enumerate(zip(rewards, groups, strict=True)):
        if row is None:
            continue
        if row.dim() != 1 or len(row) == 0:
            raise ValueError(
                f"rollout {index} has step rewards of shape {tuple(row.shape)}; a rollout to learn "
                "from has one reward for each of at least one step, any other is None"
            )
        found[group].append(index)
    return found


def _row(rewards: StepRewards, index: int) -> torch.Tensor:
    row = rewards[index]
    assert row is not None
    return row


def _end(rewards: StepRewards, index: int, ends: Ends) -> torch.Tensor:
    return _row(rewards, index).new_tensor(0.0 if ends is None else float(ends[index]))


def _returns(rewards: StepRewards, index: int, ends: Ends) -> torch.Tensor:
    """The returns-to-go of a rollout's steps and of its end, (K + 1,)."""
    return return_to_go(torch.cat([_row(rewards, index), _end(rewards, index, ends)[None]]))


def _normalised(values: torch.Tensor) -> torch.Tensor:
    """Minus the mean, over the sample's standard deviation; zeros where nothing differs."""
    if len(values) < 2 or values.std() <= 1e-6:
        return torch.zeros_like(values)
    return (values - values.mean()) / (values.std() + 1e-6)
