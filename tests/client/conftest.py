import pytest

from vrprm_reward import client_call


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client_call, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client_call, "_LONGEST_PAUSE", 0.05)
    monkeypatch.delenv("VRPRM_TOKEN", raising=False)
