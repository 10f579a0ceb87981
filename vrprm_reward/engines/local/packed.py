"""One forward pass over pieces of many sequences, without padding.

A batch is one long row: the tokens of all segments one after another. Every layer but attention
treats tokens alone, so nothing there knows of segments; attention runs each segment against the
keys and values of its own sequence, which are written in place (`flash`, `by_segment`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from vrprm_reward.engines.local import flash
from vrprm_reward.engines.local.by_segment import BySegment
from vrprm_reward.engines.local.kv_memory import CacheShape
from vrprm_reward.engines.local.norms import use_torch_norms
from vrprm_reward.engines.local.pieces import MOST_TOKENS, Pieces
from vrprm_reward.engines.local.tokens import Segment

ATTENTION = "vrprm_packed"


def _packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  transformers' signature
    *,
    scaling: float,
    plan: BySegment | flash.Flash,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    return plan.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(ATTENTION, _packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)


class PackedModel:
    """Runs segments through the language model of a transformers checkpoint."""

    def __init__(self, model: Any, *, cuda_graphs: bool = False) -> None:
        self._model = model
        model.model.language_model.config._attn_implementation = ATTENTION
        use_torch_norms(model.model.language_model)
        self.shape = CacheShape.of(model)
        text = model.model.language_model
        cuts = self.shape.token_major and Pieces.suits(text)
        self._pieces = Pieces(text, record=cuda_graphs) if cuts else None

    @torch.inference_mode()
    def run(self, segments: Sequence[Segment]) -> torch.Tensor:
        """Push segments through. Returns float32 logits of those that want them, (k, vocabulary).

        Tokens of a segment see the filled part of their cache and one another, causally.
        """
        if not self.shape.token_major:
            return self._run(segments, BySegment(segments, self.shape))
        order = flash.order(segments)
        logits = self._run([segments[i] for i in order], flash.Flash([segments[i] for i in order]))
        places = np.argsort([i for i in order if segments[i].logits])
        return logits[torch.from_numpy(places).to(logits.device)]

    def _run(self, segments: Sequence[Segment], plan: BySegment | flash.Flash) -> torch.Tensor:
        device = self.shape.device
        ids = torch.from_numpy(np.concatenate([s.ids for s in segments])).to(device)
        positions = np.concatenate([s.positions for s in segments], axis=1)
        embeds = self._model.get_input_embeddings()(ids[None])
        visual = self._place_images(segments, embeds)
        places = torch.from_numpy(positions)[:, None].to(device)
        hidden = self._through_layers(embeds, places, plan, visual)
        ends = np.cumsum([len(s.ids) for s in segments]) - 1
        wanted = [int(end) for end, s in zip(ends, segments, strict=True) if s.logits]
        logits: torch.Tensor = self._model.lm_head(hidden[wanted]).float()
        return logits

    def _through_layers(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        plan: BySegment | flash.Flash,
        visual: dict[str, Any],
    ) -> torch.Tensor:
        """Last hidden states, (tokens, hidden)."""
        few = embeds.shape[1] <= MOST_TOKENS and not visual
        if self._pieces is not None and few and isinstance(plan, flash.Flash):
            return self._pieces.run(embeds[0], positions, plan.over)
        states: torch.Tensor = self._model.model.language_model(
            inputs_embeds=embeds, position_ids=positions, use_cache=False, plan=plan, **visual
        ).last_hidden_state
        return states[0]

    def _place_images(self, segments: Sequence[Segment], embeds: torch.Tensor) -> dict[str, Any]:
        """Put visual features in the place of image tokens; what deepstack needs is returned."""
        visual = np.concatenate([s.visual for s in segments])
        places = torch.from_numpy(visual >= 0).to(embeds.device)
        rows, deep = [], []
        for segment in segments:
            chosen = segment.visual[segment.visual >= 0]
            if len(chosen) == 0:
                continue
            assert segment.features is not None
            index = torch.from_numpy(chosen).to(embeds.device)
            rows.append(segment.features.rows[index])
            deep.append([layer[index] for layer in segment.features.deep])
        if not rows:
            return {}
        embeds[0, places] = torch.cat(rows).to(embeds.dtype)
        if not deep[0]:
            return {}
        layers = [torch.cat(parts) for parts in zip(*deep, strict=True)]
        return {"visual_pos_masks": places[None], "deepstack_visual_embeds": layers}
