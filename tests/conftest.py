"""Shared parts: tiny random checkpoints, a scripted engine, pictures."""

import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vrprm_reward import Problem, Rollout, load_profile
from vrprm_reward.demo import world
from vrprm_reward.demo.model import build_model
from vrprm_reward.demo.questions import random_question
from vrprm_reward.demo.samples import tokenizer_texts
from vrprm_reward.demo.tokenizer import train_tokenizer

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def demo_tokenizer():
    """A tokenizer trained on the demo world's prompts."""
    return train_tokenizer(tokenizer_texts(random.Random(0), [load_profile("demo")], 300), 1024)


def _save(folder: Path, tokenizer, model, patch_size: int) -> Path:
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        size={
            "shortest_edge": 4 * (2 * patch_size) ** 2,
            "longest_edge": 64 * (2 * patch_size) ** 2,
        },
        patch_size=patch_size,
        merge_size=2,
    ).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_qwen3_vl(tmp_path_factory, demo_tokenizer) -> Path:
    """A Qwen3-VL checkpoint with random weights."""
    torch.manual_seed(1)
    return _save(
        tmp_path_factory.mktemp("qwen3_vl"), demo_tokenizer, build_model(demo_tokenizer), 16
    )


@pytest.fixture(scope="session")
def random_qwen2_5_vl(tmp_path_factory, demo_tokenizer) -> Path:
    """A Qwen2.5-VL checkpoint with random weights."""
    torch.manual_seed(2)
    token = demo_tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(demo_tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 6, 6],
            },
            "eos_token_id": demo_tokenizer.eos_token_id,
            "pad_token_id": demo_tokenizer.pad_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 14,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    return _save(tmp_path_factory.mktemp("qwen2_5_vl"), demo_tokenizer, model, 14)


@pytest.fixture
def picture() -> Image.Image:
    """A small picture with some structure."""
    image = Image.new("RGB", (96, 64), "white")
    image.paste((200, 30, 30), (8, 8, 40, 40))
    return image


@pytest.fixture
def make_rollout(picture):
    """Rollouts of the demo world, or with given texts."""

    def make(response: str = "First.\n\nSecond.", question: str = "What is there?", **more):
        return Rollout(
            problem=Problem(question=question, images=[picture]), response=response, **more
        )

    return make


@pytest.fixture(scope="session")
def world_rollouts():
    """Twelve rollouts of the demo world, three for each of four problems."""
    rng = random.Random(5)
    found = []
    for _ in range(4):
        question = random_question(rng)
        for _ in range(3):
            example = world.solve(question, rng)
            problem = Problem(question=example.question, images=[example.image])
            text = "\n\n".join(step.text for step in example.steps)
            found.append(Rollout(problem=problem, response=text))
    return found
