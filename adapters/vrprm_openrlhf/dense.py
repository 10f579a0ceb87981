"""Step rewards -> what OpenRLHF's own estimators turn into step advantages.

By default (`sound_prefix`) that is nothing to be added, but a weight of every token, by which
OpenRLHF's advantages of the whole response are multiplied. With the other rules it is rewards of
tokens. OpenRLHF's estimators sum rewards from each token to the end. Their baselines see one number
per rollout, so step rewards of 0 and 1 would stay uncentred, and longer responses would always
gain. Therefore what is placed are not the rewards but the differences of the advantages
A_1 .. A_{K+1} that a rule of `vrprm_reward.rewards.advantage` gives: A_k - A_{k+1} on the last
token of step k, and A_{K+1}, that of the end, on the last token of the response. Summed from any
token of step k on, that is A_k.
"""

from collections.abc import Hashable, Sequence

import torch

from vrprm_openrlhf.wire import StepRow
from vrprm_reward.rewards.advantage import ESTIMATORS, prefix_weights, to_tokens

RAW = "none"
"""The name for step rewards as they are: a critic (`gae`) learns its own baseline."""

RULES = (*ESTIMATORS, RAW)
"""What the advantage of a step may be called."""


def token_weights(
    rows: Sequence[StepRow | None], masks: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """How much is learnt from every token under the advantage rule `sound_prefix`.

    Args:
        rows, masks: as of `token_rewards`.

    Returns:
        For each rollout a float32 tensor as long as its mask, 0 where there are no steps.
    """
    found = []
    for row, mask in zip(rows, masks, strict=True):
        if row is None or len(row.values) == 0:
            found.append(torch.zeros(len(mask), dtype=torch.float32))
        else:
            weights = prefix_weights(row.values.float())
            found.append(to_tokens(weights, row.positions.tolist(), mask.float()))
    return found


def token_rewards(
    rows: Sequence[StepRow | None],
    masks: Sequence[torch.Tensor],
    groups: Sequence[Hashable],
    rule: str,
) -> list[torch.Tensor]:
    """Token-level rewards of the rollouts of a batch.

    Args:
        rows: the step rewards of each rollout; None for one that is not to be learnt from. One
            without steps gets zeros, and is no part of its group either.
        masks: for each rollout its action mask, of shape (A,), 1 where the policy wrote the token.
        groups: for each rollout the problem that it answers.
        rule: a name in `RULES`.

    Returns:
        For each rollout a float32 tensor as long as its mask.
    """
    steps: list[torch.Tensor | None] = [
        None if row is None or len(row.values) == 0 else row.values for row in rows
    ]
    advantages = [None] * len(rows) if rule == RAW else ESTIMATORS[rule](steps, groups)
    found = []
    for row, values, advantage, mask in zip(rows, steps, advantages, masks, strict=True):
        tokens = torch.zeros(len(mask), dtype=torch.float32)
        if row is not None and values is not None:
            if advantage is not None:
                values = advantage[:-1] - advantage[1:]
                tokens[mask.nonzero()[-1]] = advantage[-1].to(tokens)
            tokens.index_add_(0, row.positions, values.to(tokens))
        found.append(tokens)
    return found
