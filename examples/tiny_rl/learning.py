"""One policy-gradient update: step rewards -> advantages -> tokens -> loss."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from vrprm_reward.engines.local.encode import EncodedPrompt
from vrprm_reward.rewards.advantage import ESTIMATORS, to_tokens
from vrprm_reward.rewards.align import last_tokens
from vrprm_reward.rewards.combine import RolloutReward

from .policy import Policy
from .sampling import Response

CLIP = 1.0
"""Largest norm of a gradient."""


def token_advantages(
    rewards: Sequence[RolloutReward],
    responses: Sequence[Response],
    groups: Sequence[Hashable],
    estimator: str,
    tokenizer: Any,
) -> torch.Tensor:
    """The advantage of every token, (b, T): what verl's estimators of this project give.

    A response that is rewarded as a whole is a single step; a masked one, and what pads a response,
    has 0.
    """
    length = max(len(response.ids) for response in responses)
    given = [
        torch.tensor(reward.rewards, dtype=torch.float32) if not reward.masked else None
        for reward in rewards
    ]
    found = torch.zeros(len(responses), length)
    steps = ESTIMATORS[estimator](given, groups, [reward.end for reward in rewards])
    for row, (advantages, reward, response) in enumerate(
        zip(steps, rewards, responses, strict=True)
    ):
        if advantages is None:
            continue
        mask = (torch.arange(length) < len(response.ids)).float()
        places = [len(response.ids) - 1]
        if reward.steps:
            places = last_tokens(response.ids, tokenizer, response.text, reward.steps)
        found[row] = to_tokens(advantages, places, mask)
    return found


def without_ends(advantages: torch.Tensor, responses: Sequence[Response], end: int) -> torch.Tensor:
    """Advantages, (b, T), with 0 at the tokens that end responses."""
    ids = [[*r.ids, *[-1] * (advantages.shape[1] - len(r.ids))] for r in responses]
    return advantages.masked_fill(torch.tensor(ids) == end, 0.0)


def update(
    policy: Policy,
    optimizers: Sequence[torch.optim.Optimizer],
    prompts: Sequence[EncodedPrompt],
    responses: Sequence[Response],
    advantages: torch.Tensor,
) -> dict[str, float]:
    """One step up the gradient of sum(advantage x log-probability) / tokens.

    Every update is on the responses that the policy has just sampled, so there is no ratio to
    clip. Each prompt is encoded once for its group. Where no advantage is left nothing is changed:
    the optimizers' momentum would otherwise move the policy without a reason.
    """
    length = advantages.shape[1]
    padded = torch.tensor([[*r.ids, *[policy.end] * (length - len(r.ids))] for r in responses])
    mask = torch.tensor([[place < len(r.ids) for place in range(length)] for r in responses])
    seen = policy.see(prompts).repeated(len(responses) // len(prompts))
    logits = policy.logits(policy.hidden(seen, padded)[mask])
    each = logits.log_softmax(-1)
    chosen = each.gather(1, padded[mask][:, None])[:, 0]
    loss = -(advantages[mask] * chosen).sum() / mask.sum()
    if not advantages.any():
        return {"gradient": 0.0, "entropy": _entropy(each)}
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return {"gradient": float(norm), "entropy": _entropy(each)}


@torch.no_grad()
def _entropy(log_p: torch.Tensor) -> float:
    """Mean over tokens, in nats."""
    return float(-(log_p.exp() * log_p.clamp(min=-100)).sum(-1).mean())


def make_optimizer(policy: Policy) -> torch.optim.Optimizer:
    """AdamW for all that learns. Its rate is set before every step.

    Not Muon, which pre-training uses: it makes every direction of a gradient equally large, and
    most directions of a policy gradient of few responses are noise.
    """
    learning = [p for p in policy.model.parameters() if p.requires_grad]
    return torch.optim.AdamW(learning, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)


WARM_UP = 10
"""Updates until the rate is whole: the optimizer knows nothing of the gradients at the start."""


def rate_factor(number: int, updates: int) -> float:
    """Share of the rate at update `number` >= 1: up, then down to a tenth in a straight line."""
    return min(1.0, number / WARM_UP) * (1 - 0.9 * number / updates)
