"""Prompts as token ids: conversation template, tokenizer, and one id per visual token.

A prompt is rendered whole and tokenised whole, so that a judged position never depends on where
an implementation cut the text.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)

from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.tokens import Ints
from vrprm_reward.errors import CheckpointError, EngineError
from vrprm_reward.images import FinalImage


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model takes it; all arrays have one entry per token."""

    ids: Ints
    """Token ids, (n,); an image stands as many times as it has visual tokens."""

    keys: Ints
    """As `ids`, but a visual token has a number that names its image and place, (n,). Prompts
    with equal beginnings have equal keys there, and only they."""

    positions: Ints
    """Rotary positions, (3, n)."""

    visual: Ints
    """Running number of a visual token among those of the prompt, -1 for text, (n,)."""

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
        rope_index: the model's own function of token ids to rotary positions.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Qwen2VLImageProcessorPil,
        *,
        template: str,
        image_token_id: int,
        rope_index: Callable[..., Any],
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.image_token_id = image_token_id
        self._rope_index = rope_index

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
        plain = np.asarray(ids, dtype=np.int64)
        if not images:
            positions = np.broadcast_to(np.arange(len(plain)), (3, len(plain)))
            return EncodedPrompt(plain, plain, positions, np.full(len(plain), -1), ())
        return self._with_images(plain, images)

    def _with_images(self, plain: Ints, images: tuple[FinalImage, ...]) -> EncodedPrompt:
        grids = [self.grid(image) for image in images]
        merge = int(self.image_processor.merge_size)
        counts = [t * h * w // merge**2 for t, h, w in grids]
        repeats = np.ones(len(plain), dtype=np.int64)
        repeats[plain == self.image_token_id] = counts
        ids = np.repeat(plain, repeats)
        places = ids == self.image_token_id
        keys = ids.copy()
        keys[places] = np.concatenate(
            [
                _key_base(image, grid) - np.arange(n)
                for image, grid, n in zip(images, grids, counts, strict=True)
            ]
        )
        visual = np.where(places, np.cumsum(places) - 1, -1)
        positions, _ = self._rope_index(
            torch.from_numpy(ids)[None],
            mm_token_type_ids=torch.from_numpy(places.astype(np.int32))[None],
            image_grid_thw=torch.tensor(grids),
        )
        return EncodedPrompt(ids, keys, positions[:, 0].numpy(), visual, images)

    def grid(self, image: FinalImage) -> tuple[int, int, int]:
        """Patches of an image in time, height and width."""
        processor = self.image_processor
        width, height = image.image.size
        patch = int(processor.patch_size)
        height, width = smart_resize(
            height,
            width,
            patch * int(processor.merge_size),
            min_pixels=processor.size["shortest_edge"],
            max_pixels=processor.size["longest_edge"],
        )
        return 1, height // patch, width // patch

    def pixels(self, images: Sequence[FinalImage]) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of float32 (patches, patch values) and grids of int64 (images, 3)."""
        out = self.image_processor(images=[image.image for image in images], return_tensors="pt")
        return out["pixel_values"], out["image_grid_thw"]


def _key_base(image: FinalImage, grid: tuple[int, int, int]) -> int:
    """A negative number that names an image at a size; its tokens count down from there."""
    digest = hashlib.sha256(f"{image.digest} {grid}".encode()).digest()
    return -(int.from_bytes(digest[:6], "big") << 14) - 1


def _only_text(message: Message) -> str:
    return "".join(part for part in message.parts if isinstance(part, str))


def _chat_message(message: Message) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}
