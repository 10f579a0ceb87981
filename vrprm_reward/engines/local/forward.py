"""What the model computes: greedy continuations and verdict log-probabilities of a batch.

Prompts of a batch are padded on the left, so that all of them end at the same place.
"""

from collections.abc import Sequence
from typing import Any

import torch

from vrprm_reward.engines.engine import Generation, Judgement
from vrprm_reward.engines.local.checkpoint import Checkpoint, model_device
from vrprm_reward.engines.local.encode import EncodedPrompt, PromptEncoder


class Forward:
    """One checkpoint and its encoder. Not thread-safe: the scheduler's thread owns it."""

    def __init__(self, checkpoint: Checkpoint, encoder: PromptEncoder) -> None:
        self._model = checkpoint.model
        self._encoder = encoder
        config = checkpoint.model.generation_config
        ends = config.eos_token_id if config is not None else None
        if ends is None:
            ends = checkpoint.tokenizer.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or [])

    @torch.inference_mode()
    def judge(self, prompts: Sequence[EncodedPrompt]) -> list[Judgement]:
        """Log-probabilities of "0" and "1" after each prompt, renormalised over the vocabulary."""
        inputs = self._inputs(prompts)
        positions, images = self._positions(inputs)
        output = self._model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            position_ids=positions,
            **images,
            logits_to_keep=1,
            use_cache=False,
        )
        log_p = output.logits[:, -1].float().log_softmax(-1)[:, list(self._encoder.verdict_ids)]
        return [
            Judgement(float(l0), float(l1), len(prompt))
            for prompt, (l0, l1) in zip(prompts, log_p.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[EncodedPrompt], max_tokens: Sequence[int], stop: str | None
    ) -> list[Generation]:
        """Greedy continuation of each prompt until `stop`, an end token or its `max_tokens`."""
        inputs = self._inputs(prompts)
        written: list[list[int]] = [[] for _ in prompts]
        finish: list[str | None] = [None] * len(prompts)
        cache, mask = None, inputs["attention_mask"]
        positions, image_inputs = self._positions(inputs)
        step: dict[str, Any] = {"input_ids": inputs["input_ids"], **image_inputs}
        while True:
            output = self._model(
                **step,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen = output.logits[:, -1].argmax(-1)
            for row, token in enumerate(chosen.tolist()):
                if finish[row] is None:
                    finish[row] = self._advance(written[row], token, max_tokens[row], stop)
            if all(finish):
                break
            step = {"input_ids": chosen[:, None]}
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
            positions = positions[..., -1:].amax(0, keepdim=True).expand(3, -1, -1) + 1
        return [
            Generation(
                text=self._decode(ids),
                finish="stop" if ended == "stop" else "length",
                prompt_tokens=len(prompt),
                generated_tokens=len(ids),
            )
            for prompt, ids, ended in zip(prompts, written, finish, strict=True)
        ]

    def _advance(self, ids: list[int], token: int, limit: int, stop: str | None) -> str | None:
        """Take one token into a row; says why the row has ended, or None."""
        if token in self._ends:
            return "stop"
        ids.append(token)
        if stop is not None and stop in self._decode(ids[-2 * len(stop) :]):
            return "stop"
        return "length" if len(ids) >= limit else None

    def _decode(self, ids: list[int]) -> str:
        text: str = self._encoder.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _inputs(self, prompts: Sequence[EncodedPrompt]) -> dict[str, Any]:
        longest = max(map(len, prompts))
        pad = self._encoder.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*[pad] * (longest - len(p)), *p.ids] for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        inputs["mm_token_type_ids"] = ((ids == self._encoder.image_token_id) & (mask == 1)).int()
        images = [image for prompt in prompts for image in prompt.images]
        if images:
            inputs["pixel_values"], inputs["image_grid_thw"] = self._encoder.pixels(images)
        device = model_device(self._model)
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def _positions(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Rotary positions (3, rows, tokens), computed here: the model's own are mutable state."""
        positions, _ = self._model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=inputs["attention_mask"],
        )
        images = {k: v for k, v in inputs.items() if k in ("pixel_values", "image_grid_thw")}
        return positions, images
