"""How the demo model learns to see: every visual token names its place and what is there."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from vrprm_reward.demo.scene import COLOURS, PLACES, SHAPES, Scene, draw, random_scene
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.images import final_pixels
from vrprm_reward.scoring.profile import Profile

NOTHING = "NOTHING"

WORDS = {
    "place": tuple(f" {word}" for word in PLACES),
    "colour": tuple(f" {word.upper()}" for word in (*COLOURS, NOTHING)),
    "shape": tuple(f" {word.upper()}" for word in SHAPES),
}
"""The groups of words, as they stand in notes."""


def look_losses(
    model: Any, encoder: PromptEncoder, profile: Profile, rng: random.Random, pictures: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless losses of new pictures, one for each group of words.

    The vision tower's output is read with the language model's own head, as if it were a word: so
    the language model finds the words that it needs in the visual tokens, place names included.
    """
    groups = {name: [_only_token(encoder, word) for word in words] for name, words in WORDS.items()}
    text = model.model.language_model
    while True:
        scenes = [random_scene(rng) for _ in range(pictures)]
        drawn = [final_pixels([draw(scene, rng)], profile.pixels)[0] for scene in scenes]
        pixels, grid = (part.to(model.device) for part in encoder.pixels(drawn))
        features = model.model.get_image_features(pixels, grid).pooler_output
        logits = model.lm_head(text.norm(torch.cat(list(features))))
        named = [words_of_cells(scene) for scene in scenes]
        found = {}
        for name, group in groups.items():
            words = [word for cells in named for word in cells[name]]
            labels = [-1 if word is None else WORDS[name].index(word) for word in words]
            wanted = torch.tensor(labels, device=logits.device)
            found[name] = cross_entropy(logits[:, group], wanted, ignore_index=-1)
        yield found


def words_of_cells(scene: Scene) -> dict[str, list[str | None]]:
    """For each group of words, the word of every cell in reading order; None where none fits."""
    return {
        "place": [f" {place}" for place in PLACES],
        "colour": [f" {thing.colour.upper() if thing else NOTHING}" for thing in scene.cells],
        "shape": [f" {thing.shape.upper()}" if thing else None for thing in scene.cells],
    }


def _only_token(encoder: PromptEncoder, text: str) -> int:
    (token,) = encoder.tokenizer.encode(text, add_special_tokens=False)
    return int(token)
