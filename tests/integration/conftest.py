"""One real vLLM and one reward server, shared by all tests against real frameworks.

Run by `make integration` in an environment that has vLLM, verl, OpenRLHF and TRL.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.integration.processes import ServerProcess, vllm, vrprm_serve

# A core for this process and one for vLLM: their threads, spinning, would get in each other's way.
torch.set_num_threads(1)

TEST_SECONDS = 900
"""For a test and the servers that it is the first to need, on a busy machine."""


def pytest_configure(config: pytest.Config) -> None:
    # A run that is told to end still ends its servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Other people's code warns as it likes; ours must not.
    config.addinivalue_line("filterwarnings", "ignore")
    config.addinivalue_line("filterwarnings", "error:::vrprm_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """vLLM with the packaged demo checkpoint; `openai+{url}/v1` scores through it."""
    with vllm(tmp_path_factory.mktemp("vllm")) as server:
        yield server


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures lie that the reward server may read by their paths."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def reward_server(
    tmp_path_factory: pytest.TempPathFactory, world_folder: Path
) -> Iterator[ServerProcess]:
    """`vrprm-reward serve` with the demo checkpoint in process, `/get_reward` included."""
    options = ("--unscored-reward", "-1", "--allow-folder", str(world_folder))
    with vrprm_serve(tmp_path_factory.mktemp("serve"), *options) as server:
        yield server
