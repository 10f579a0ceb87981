import subprocess
import sys

import pytest

from vrprm_openrlhf import runtime_env_hook
from vrprm_openrlhf.hook import SETUP_HOOK


def test_the_hook_adds_itself_and_the_settings_to_a_jobs_environment(monkeypatch):
    monkeypatch.setenv("VRPRM_OPENRLHF_URL", "http://reward:8000")
    monkeypatch.setenv("VRPRM_OPENRLHF_MODE", "dense")
    monkeypatch.setenv("VRPRM_TOKEN", "a secret, which Ray would show")
    given = {"env_vars": {"NCCL_DEBUG": "WARN", "VRPRM_OPENRLHF_MODE": "scalar"}, "pip": ["x"]}
    found = runtime_env_hook(given)
    assert found == {
        "pip": ["x"],
        SETUP_HOOK: "vrprm_openrlhf.install",
        "env_vars": {
            "NCCL_DEBUG": "WARN",
            "VRPRM_OPENRLHF_URL": "http://reward:8000",
            "VRPRM_OPENRLHF_MODE": "scalar",
        },
    }
    assert SETUP_HOOK not in given


def test_the_hook_works_without_an_environment():
    assert runtime_env_hook(None)[SETUP_HOOK] == "vrprm_openrlhf.install"


def test_another_setup_hook_is_not_replaced():
    with pytest.raises(RuntimeError, match="Ray takes one"):
        runtime_env_hook({SETUP_HOOK: "other.install"})


def test_installing_the_hook_imports_nothing_heavy():
    # It runs at the start of every Ray worker, also of those that never train.
    code = (
        "import sys, vrprm_openrlhf; vrprm_openrlhf.install(); vrprm_openrlhf.install();"
        "assert vrprm_openrlhf.installed();"
        "assert sum('vrprm' in type(f).__module__ for f in sys.meta_path) == 1;"
        "heavy = {'torch', 'pydantic', 'openrlhf', 'vrprm_reward'} & set(sys.modules);"
        "assert not heavy, heavy; import json.tool"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
