"""Prompts as token ids: conversation template, tokenizer, and one id per visual token.

A prompt is rendered whole and tokenised whole, so that a judged position never depends on where
an implementation cut the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.errors import CheckpointError, EngineError
from vrprm_reward.images import FinalImage


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model takes it."""

    ids: tuple[int, ...]
    """Token ids; an image stands as many times as it has visual tokens."""

    images: tuple[FinalImage, ...]
    """The images, in order."""

    def __len__(self) -> int:
        return len(self.ids)


class PromptEncoder:
    """Turns prompts into token ids for one checkpoint and one conversation template.

    Args:
        tokenizer: a transformers tokenizer.
        image_processor: the checkpoint's image processor; it decides the size of an image.
        template: Jinja source in transformers' chat template dialect.
        image_token_id: id of the token that stands for one visual token.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Qwen2VLImageProcessorPil,
        *,
        template: str,
        image_token_id: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.image_token_id = image_token_id

    @cached_property
    def added_tokens(self) -> frozenset[str]:
        """Strings that become one reserved token wherever they stand."""
        return frozenset(self.tokenizer.get_added_vocab())

    @cached_property
    def verdict_ids(self) -> tuple[int, int]:
        """Ids of "0" and "1".

        Raises:
            CheckpointError: one of them is not a single token.
        """
        found = []
        for verdict in ("0", "1"):
            ids = self.tokenizer.encode(verdict, add_special_tokens=False)
            if len(ids) != 1:
                raise CheckpointError(
                    f"the tokenizer turns {verdict!r} into {len(ids)} tokens {ids}; a verdict must "
                    "be one token: use the tokenizer that belongs to the checkpoint"
                )
            found.append(ids[0])
        return found[0], found[1]

    def text(self, prompt: Prompt) -> str:
        """The whole prompt as text, one image token per image."""
        if prompt.form == "raw":
            return _only_text(prompt.messages[0])
        text: str = self.tokenizer.apply_chat_template(
            [_chat_message(message) for message in prompt.messages],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=prompt.form == "reply",
            continue_final_message=prompt.form == "continue",
        )
        return text

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Token ids of a prompt.

        Raises:
            EngineError: the text holds more or fewer image tokens than there are images.
        """
        ids = self.tokenizer.encode(self.text(prompt), add_special_tokens=False)
        images = prompt.images
        places = ids.count(self.image_token_id)
        if places != len(images):
            raise EngineError(
                f"the prompt has {places} places for {len(images)} images: the conversation "
                "template drops images, or text with an image token got into the prompt"
            )
        if images:
            counts = iter([self.visual_tokens(image) for image in images])
            ids = [
                token
                for original in ids
                for token in [original] * (next(counts) if original == self.image_token_id else 1)
            ]
        return EncodedPrompt(tuple(ids), images)

    def visual_tokens(self, image: FinalImage) -> int:
        """How many visual tokens an image becomes."""
        width, height = image.image.size
        patches = self.image_processor.get_number_of_image_patches(height, width, {})
        return int(patches) // int(self.image_processor.merge_size) ** 2

    def pixels(self, images: Sequence[FinalImage]) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of float32 (patches, patch values) and grids of int64 (images, 3)."""
        out = self.image_processor(images=[image.image for image in images], return_tensors="pt")
        return out["pixel_values"], out["image_grid_thw"]


def _only_text(message: Message) -> str:
    return "".join(part for part in message.parts if isinstance(part, str))


def _chat_message(message: Message) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}
