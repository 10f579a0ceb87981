"""One Ray for all tests of verl."""

import pytest
from PIL import Image

from tests.integration.processes import ROOT
from vrprm_reward.process_reward import DEMO_FOLDER

SECONDS = 900
"""For one test with what it sets up: each of verl's workers imports verl for up to a minute."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "integration/verl" in item.nodeid:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def cluster():
    """The folder in which Ray keeps what its workers write."""
    # Here: verl is not imported before pytest knows which warnings count.
    from tests.integration.verl.harness import ray_cluster

    with ray_cluster() as logs:
        yield logs


@pytest.fixture(scope="session")
def reward_loops(cluster):
    """verl's reward workers, for as many tests in a row as ask for the same ones."""
    from tests.integration.verl.harness import RewardLoops

    found = RewardLoops()
    yield found
    found.close()


@pytest.fixture(scope="session")
def tokenizer():
    """The policy's."""
    from verl.utils import hf_tokenizer

    return hf_tokenizer(str(DEMO_FOLDER))


@pytest.fixture
def metrics_patch(monkeypatch):
    """What VRPRM_VERL_PATCHES=metrics changes in a trainer's process, for one test."""
    from verl.trainer.ppo import ray_trainer
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    from vrprm_verl.patches import patch_metrics

    for owner, name in [(ray_trainer, "compute_data_metrics"), (PPOTrainer, "_compute_metrics")]:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    patch_metrics()


@pytest.fixture(scope="session")
def shapes():
    """Three red shapes, among others."""
    return Image.open(ROOT / "examples" / "shapes" / "shapes.png").convert("RGB")


@pytest.fixture(scope="session")
def other():
    """A picture with nothing in it."""
    return Image.new("RGB", (96, 96), "white")
