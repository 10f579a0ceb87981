"""The demo checkpoint's shape: a Qwen3-VL of a few million parameters."""

import math
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

IMAGE_SIDE = 96
"""Pictures are shown to the demo model at 96 x 96 pixels: 3 x 3 visual tokens, one per cell."""

CONTEXT_TOKENS = 2048

SHARPNESS = 2.0
"""Initial scale of normalised queries and keys. At 1 the largest attention logit is
sqrt(head size) = 5.7, which leaves a token among 200 at most 59% of the attention."""

INITIAL_RANGE = 0.06
QUIET = 0.1
"""Initial scale of what text layers add: at 1 they drown the tokens that they are to compare."""

VISIBLE = 1.0
"""Initial range of the vision tower's position embeddings: smaller than that, they drown in what
the patches show."""

LOOKING_BACK = ((1, 2),)
"""How many tokens back the first heads of each layer look at first, which is the first half of
looking something up by its name (Olsson et al. 2022, arXiv 2209.11895)."""


def build_model(tokenizer: Any) -> Qwen3VLForConditionalGeneration:
    """A freshly initialised demo model for this tokenizer, in float32 on the CPU."""
    token = tokenizer.convert_tokens_to_ids
    width = 160
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 416,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 32,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
        "initializer_range": INITIAL_RANGE,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
        "initializer_range": INITIAL_RANGE,
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    layers = model.model.language_model.layers
    for layer in layers:
        layer.self_attn.q_norm.weight.data.fill_(SHARPNESS)
        layer.self_attn.k_norm.weight.data.fill_(SHARPNESS)
        layer.self_attn.o_proj.weight.data.mul_(QUIET)
        layer.mlp.down_proj.weight.data.mul_(QUIET)
    model.model.language_model.embed_tokens.weight.data[:, 0] = 5 * INITIAL_RANGE
    torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=VISIBLE)
    for layer, distances in zip(layers, LOOKING_BACK, strict=False):
        _look_back(layer.self_attn, distances, text["rope_parameters"]["rope_theta"])
    return model


def _look_back(attention: Any, distances: tuple[int, ...], rope_theta: float) -> None:
    """Make heads attend by distance: rotary angles of the fastest frequencies, from a constant.

    The first number of every embedding is the same, so queries and keys can be constant.
    """
    size = attention.head_dim
    for head, distance in enumerate(distances):
        rows = slice(head * size, (head + 1) * size)
        query, key = attention.q_proj.weight.data[rows], attention.k_proj.weight.data[rows]
        query.mul_(0.1)
        key.mul_(0.1)
        for pair in range(4):
            angle = distance * rope_theta ** (-2 * pair / size)
            query[pair, 0] += math.cos(angle)
            query[pair + size // 2, 0] -= math.sin(angle)
            key[pair, 0] += 1
        attention.o_proj.weight.data[:, rows].mul_(3)
