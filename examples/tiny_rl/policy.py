"""The policy: a Qwen3-VL of about 1.6 million parameters, its prompts, and its forward pass."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen3VLConfig

from vrprm_reward.demo.model import new_model
from vrprm_reward.demo.moves import NUMBERS
from vrprm_reward.demo.recipe import demo_profile
from vrprm_reward.demo.train import make_encoder
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.checkpoint import load_checkpoint
from vrprm_reward.engines.local.encode import EncodedPrompt, PromptEncoder
from vrprm_reward.images import final_pixels
from vrprm_reward.process_reward import DEMO_FOLDER

from .problems import Task

WIDTH, LAYERS, HEADS = 128, 4, 4
VISION_WIDTH = 96
CONTEXT_TOKENS = 512


def build_policy() -> "Policy":
    """A freshly initialised policy with the demo checkpoint's tokenizer, in float32."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    base = Qwen3VLConfig.from_pretrained(DEMO_FOLDER)
    text = base.text_config.to_dict() | {
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH * 5 // 2,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": True,
    }
    vision = base.vision_config.to_dict() | {
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 2 * VISION_WIDTH,
        "num_heads": 3,
        "out_hidden_size": WIDTH,
    }
    model = new_model(tokenizer, text, vision).float()
    return Policy(model, make_encoder(tokenizer, demo_profile("demo"), model))


@dataclass(frozen=True)
class Seen:
    """Prompts of equal length as the language model takes them. P tokens each, b prompts."""

    embeds: torch.Tensor
    """(b, P, hidden), visual features in the place of image tokens."""

    positions: torch.Tensor
    """Rotary positions, (3, b, P)."""

    visual: torch.Tensor
    """Which tokens are visual, bool (b, P)."""

    deep: tuple[torch.Tensor, ...]
    """What deepstack adds at the visual tokens, each (b, visual tokens of a prompt, hidden)."""

    def repeated(self, times: int) -> "Seen":
        """Every prompt `times` times in a row; nothing is encoded again."""
        return Seen(
            self.embeds.repeat_interleave(times, 0),
            self.positions.repeat_interleave(times, 1),
            self.visual.repeat_interleave(times, 0),
            tuple(layer.repeat_interleave(times, 0) for layer in self.deep),
        )


class Policy:
    """A model with its encoder.

    Args:
        model: a Qwen3-VL.
        encoder: turns prompts into token ids.
    """

    def __init__(self, model: Any, encoder: PromptEncoder) -> None:
        self.model = model
        self.encoder = encoder
        self._profile = demo_profile("demo")
        banned = torch.zeros(len(encoder.tokenizer), dtype=torch.bool)
        added = set(encoder.tokenizer.get_added_vocab().values())
        banned[sorted(added - {encoder.tokenizer.eos_token_id})] = True
        self._banned = banned
        words = [encoder.tokenizer.tokenize(f" {word}")[-1] for word in NUMBERS]
        self.numbers = frozenset(encoder.tokenizer.convert_tokens_to_ids(words))
        """Ids of the words for numbers."""

    @property
    def end(self) -> int:
        """Id of the token that ends a response."""
        return int(self.encoder.tokenizer.eos_token_id)

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(p.numel() for p in self.model.parameters())

    def prompt(self, task: Task) -> EncodedPrompt:
        """A problem as token ids."""
        return self.asked(task.image, task.question.text)

    def asked(self, picture: Image.Image, text: str) -> EncodedPrompt:
        """A picture and a request as token ids."""
        images = final_pixels([picture], self._profile.pixels)
        return self.encoder.encode(Prompt((Message("user", (*images, text)),)))

    def see(self, prompts: Sequence[EncodedPrompt]) -> Seen:
        """Embed prompts, each image once.

        Raises:
            ValueError: they are not equally long.
        """
        if len({len(prompt) for prompt in prompts}) != 1:
            raise ValueError(
                f"prompts of {sorted({len(p) for p in prompts})} tokens in one batch: nothing is "
                "padded here, so they must be equally long"
            )
        ids = torch.stack([torch.from_numpy(prompt.ids) for prompt in prompts])
        visual = torch.stack([torch.from_numpy(prompt.visual >= 0) for prompt in prompts])
        positions = torch.stack([torch.from_numpy(p.positions.copy()) for p in prompts], dim=1)
        pixels, grid = self.encoder.pixels([image for p in prompts for image in p.images])
        output = self.model.model.get_image_features(pixels, grid, return_dict=True)
        rows = torch.cat(list(output.pooler_output))
        embeds = self.model.get_input_embeddings()(ids)
        embeds = embeds.masked_scatter(visual[..., None], rows.to(embeds.dtype))
        deep = []
        for layer in output.deepstack_features:
            joined = torch.cat(list(layer)) if isinstance(layer, tuple) else layer
            deep.append(joined.reshape(len(prompts), -1, joined.shape[-1]))
        return Seen(embeds, positions, visual, tuple(deep))

    def hidden(self, seen: Seen, responses: torch.Tensor) -> torch.Tensor:
        """Last hidden states (b, T, hidden) after which each of `responses`, (b, T), is predicted.

        Responses are padded on the right, where causal attention never looks.
        """
        length = responses.shape[1] - 1
        embeds = torch.cat(
            [seen.embeds, self.model.get_input_embeddings()(responses[:, :-1])], dim=1
        )
        first = seen.positions.amax(dim=(0, 2))[:, None] + 1 + torch.arange(length)
        positions = torch.cat([seen.positions, first.expand(3, -1, -1)], dim=2)
        text = torch.zeros(len(responses), length, dtype=torch.bool)
        states = self.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            use_cache=False,
            visual_pos_masks=torch.cat([seen.visual, text], dim=1),
            deepstack_visual_embeds=[layer.flatten(0, 1) for layer in seen.deep],
        ).last_hidden_state
        found: torch.Tensor = states[:, seen.embeds.shape[1] - 1 :]
        return found

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Over the vocabulary; reserved tokens, those of images included, are never chosen."""
        found: torch.Tensor = self.model.lm_head(hidden)
        return found.masked_fill(self._banned, -torch.inf)

    def text(self, ids: Sequence[int]) -> str:
        """A response's tokens as text, without the token that ends it."""
        found: str = self.encoder.tokenizer.decode(ids, skip_special_tokens=True)
        return found

    def save(self, folder: Path) -> None:
        """Write a transformers folder, in float32: to go on from it must change nothing."""
        self.encoder.tokenizer.save_pretrained(folder)
        self.encoder.image_processor.save_pretrained(folder)
        copy.deepcopy(self.model).save_pretrained(folder)


def load_policy(folder: Path) -> Policy:
    """A policy from its folder, to be trained. Raises `CheckpointError`."""
    checkpoint = load_checkpoint(folder, device="cpu", dtype="float32")
    checkpoint.model.requires_grad_(True)
    encoder = make_encoder(checkpoint.tokenizer, demo_profile("demo"), checkpoint.model)
    return Policy(checkpoint.model, encoder)
