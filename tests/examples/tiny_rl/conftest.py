"""A policy that has learnt nothing, and a few problems."""

import pytest
import torch

from examples.tiny_rl.policy import build_policy
from examples.tiny_rl.problems import tasks


@pytest.fixture(scope="session")
def untrained():
    """Never changed by a test: those that train make one of their own."""
    torch.manual_seed(3)
    policy = build_policy()
    policy.model.eval()
    return policy


@pytest.fixture(scope="session")
def some_tasks():
    return tasks(6, seed=11)
