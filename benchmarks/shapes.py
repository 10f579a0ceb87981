"""Shapes of the models with random weights that are measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Shape:
    """What decides the size of a Qwen3-VL; the rest comes from a tokenizer."""

    name: str

    text: Mapping[str, Any]
    """As `Qwen3VLTextConfig` takes it; the vocabulary is the tokenizer's unless it is here."""

    vision: Mapping[str, Any]
    """As `Qwen3VLVisionConfig` takes it."""


def _rotary(base: float, sections: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "rope_type": "default",
        "rope_theta": base,
        "mrope_section": list(sections),
        "mrope_interleaved": True,
    }


def small(layers: int, width: int) -> Shape:
    """For a CPU: 13 layers of width 640 have 64 M language parameters.

    Heads of keys are shared by five heads of queries; in Qwen3-VL-4B it is four.
    """
    return Shape(
        f"{layers} layers of {width}",
        {
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": max(1, width // 320),
            "head_dim": 64,
            "max_position_embeddings": 32768,
            "rope_parameters": _rotary(1e6, (12, 10, 10)),
            "tie_word_embeddings": True,
        },
        {
            "depth": 6,
            "hidden_size": 384,
            "intermediate_size": 1152,
            "num_heads": 6,
            "out_hidden_size": width,
            "deepstack_visual_indexes": [1, 3],
        },
    )


QWEN3_VL_4B = Shape(
    "the shape of Qwen3-VL-4B",
    {
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rope_parameters": _rotary(5e6, (24, 20, 20)),
        "tie_word_embeddings": True,
    },
    {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    },
)
"""That of the published VRPRM-Qwen3VL-4B."""


ShapeName = Literal["small", "4b"]


def chosen(name: ShapeName, *, layers: int, width: int) -> Shape:
    """`small` with these layers and this width, or `4b`."""
    return QWEN3_VL_4B if name == "4b" else small(layers, width)
