"""OpenRLHF with the hook, and beside it a copy that nothing has touched."""

import importlib.util
import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import pytest

import vrprm_openrlhf


@pytest.fixture(scope="session")
def patched():
    """OpenRLHF's experience maker, patched by the hook as it was imported."""
    vrprm_openrlhf.install()
    import openrlhf.trainer.ppo_utils.experience_maker as module

    return module


@pytest.fixture(scope="session")
def stock(patched):
    """The same module once more, as OpenRLHF ships it."""
    spec = importlib.util.spec_from_file_location("stock_experience_maker", patched.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    """No setting of the machine gets into a test."""
    for name in [name for name in os.environ if name.startswith("VRPRM_")]:
        monkeypatch.delenv(name)
