"""The demo checkpoint's shape: a Qwen3-VL of a few million parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

IMAGE_SIDE = 96
"""Pictures are shown to the demo model at 96 x 96 pixels: 3 x 3 visual tokens, one per cell."""

CONTEXT_TOKENS = 2048

WIDTH, LAYERS, HEADS = 160, 5, 5

ROTARY_BASE = 5_000_000.0
"""As in Qwen3-VL: half of the frequencies hardly turn within the context, and can match words at
any distance."""

SHARPNESS = 2.0
"""Initial scale of normalised queries and keys. At 1 the largest attention logit is
sqrt(head size) = 5.7, which leaves a token among 200 at most 59% of the attention."""

INITIAL_RANGE = 0.06
QUIET = 0.1
"""Initial scale of what text layers add: at 1 they drown the tokens that they are to compare."""

VISIBLE = 1.0
"""Initial range of the vision tower's position embeddings: smaller than that, they drown in what
the patches show."""


def build_model(tokenizer: Any) -> Qwen3VLForConditionalGeneration:
    """A freshly initialised demo model for this tokenizer, in float32 on the CPU."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH * 5 // 2,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": 32,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
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
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
        "initializer_range": INITIAL_RANGE,
    }
    return new_model(tokenizer, text, vision)


def new_model(
    tokenizer: Any, text: Mapping[str, Any], vision: Mapping[str, Any]
) -> Qwen3VLForConditionalGeneration:
    """A small Qwen3-VL with scales that let it learn to compare words and to see, on the CPU.

    Args:
        tokenizer: whose vision tokens it gets.
        text: settings of the language model, as `Qwen3VLTextConfig` takes them.
        vision: settings of the vision tower, as `Qwen3VLVisionConfig` takes them.
    """
    token = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config=dict(text),
        vision_config=dict(vision),
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    for layer in model.model.language_model.layers:
        layer.self_attn.q_norm.weight.data.fill_(SHARPNESS)
        layer.self_attn.k_norm.weight.data.fill_(SHARPNESS)
        layer.self_attn.o_proj.weight.data.mul_(QUIET)
        layer.mlp.down_proj.weight.data.mul_(QUIET)
    torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=VISIBLE)
    return model
