"""The public names are exactly the intended ones, and importing them needs no torch."""

import subprocess
import sys

import vrprm_reward


def test_every_exported_name_exists_and_none_is_missing():
    public = {
        name
        for name, value in vars(vrprm_reward).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("vrprm_reward")
    }
    assert public == set(vrprm_reward.__all__)
    assert vrprm_reward.__all__ == sorted(vrprm_reward.__all__)


def test_importing_the_package_imports_no_torch():
    code = "import sys, vrprm_reward, vrprm_reward.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
