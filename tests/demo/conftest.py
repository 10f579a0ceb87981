"""A model of the demo's shape that has learnt nothing, and its encoder."""

import pytest
import torch

from vrprm_reward import load_profile
from vrprm_reward.demo.model import build_model
from vrprm_reward.demo.train import make_encoder


@pytest.fixture(scope="module")
def model(demo_tokenizer):
    torch.manual_seed(0)
    return build_model(demo_tokenizer).eval()


@pytest.fixture(scope="module")
def encoder(demo_tokenizer, model):
    return make_encoder(demo_tokenizer, load_profile("demo"), model)
