"""Responses of a policy in batches, with a key-value cache; a group shares its prompt's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from vrprm_reward.engines.local.encode import EncodedPrompt

from .policy import Policy

LONGEST = 112
"""Tokens of a response at most: about twice a flawless one."""

KEPT = 0.75
"""Responses that have ended leave the batch as soon as no more than this share of it goes on."""


@dataclass(frozen=True)
class Response:
    """One sampled response."""

    ids: tuple[int, ...]
    """Its tokens, with the one that ends it unless it was cut."""

    text: str
    """What they spell."""

    ended: bool
    """Whether the policy ended it itself."""


@torch.inference_mode()
def respond(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    *,
    group: int,
    generator: torch.Generator | None,
    longest: int = LONGEST,
) -> list[Response]:
    """`group` responses for each prompt, those of one prompt in a row.

    With a generator they are sampled at temperature 1, without one the likeliest token is taken.
    """
    seen = policy.see(prompts)
    text_model = policy.model.model.language_model
    cache = DynamicCache(config=text_model.config)
    states = text_model(
        inputs_embeds=seen.embeds,
        position_ids=seen.positions,
        past_key_values=cache,
        use_cache=True,
        visual_pos_masks=seen.visual,
        deepstack_visual_embeds=[layer.flatten(0, 1) for layer in seen.deep],
    ).last_hidden_state[:, -1]
    cache.batch_repeat_interleave(group)
    states = states.repeat_interleave(group, 0)
    position = (seen.positions.amax(dim=(0, 2)) + 1).repeat_interleave(group)
    rows = torch.arange(len(states))
    written: list[list[int]] = [[] for _ in rows]
    for place in range(longest):
        logits = policy.logits(states)
        if generator is None:
            chosen = logits.argmax(-1)
        else:
            chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
            if not written[row] or written[row][-1] != policy.end:
                written[row].append(token)
        going = torch.tensor([written[row][-1] != policy.end for row in rows.tolist()])
        if place + 1 == longest or not going.any():
            break
        if going.sum() <= KEPT * len(rows):
            kept = going.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, chosen, position = rows[kept], chosen[kept], position[kept]
        states = text_model(
            inputs_embeds=policy.model.get_input_embeddings()(chosen[:, None]),
            position_ids=position.expand(3, -1)[..., None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        position = position + 1
    return [_response(policy, ids) for ids in written]


def _response(policy: Policy, ids: list[int]) -> Response:
    return Response(tuple(ids), policy.text(ids), ids[-1] == policy.end)
