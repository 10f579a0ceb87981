"""Is a run of verl set up so that every token is credited by its step? `vrprm-reward doctor verl`.

verl says little about what it leaves out: a plugin that fails to load is logged at DEBUG, keys of
older versions are composed and ignored, and a reward manager can be passed by.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import verl
import yaml

from vrprm_reward.errors import InputError
from vrprm_verl.doctor_config import Finding, examine_config
from vrprm_verl.patches import VARIABLE, wanted_patches

_START_SECONDS = 300
_PROBE = """
import json, verl
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as estimators
from verl.experimental.reward_loop.reward_manager import registry
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry as loops
import sys
plugin = sys.modules.get("vrprm_verl.plugin")
print("VRPRM" + json.dumps({
    "loaded": plugin is not None,
    "failures": plugin.failures if plugin else {},
    "estimators": sorted(n for n in estimators if n.startswith("vrprm_")),
    "manager": "vrprm" in registry.REWARD_MANAGER,
    "loops": sorted(n for n in loops if n.startswith("vrprm_")),
}))
"""


def examine(config: Path | None) -> list[Finding]:
    """Look at this installation and, if given, at a run's composed configuration.

    Args:
        config: YAML as verl prints it or Hydra keeps it (`outputs/.../.hydra/config.yaml`).

    Raises:
        InputError: the file cannot be read.
    """
    composed = None if config is None else _read(config)
    found = [*_installation()]
    if composed is not None:
        found += examine_config(composed)
    return found


def _installation() -> Iterator[Finding]:
    version = verl.__version__
    tested = version.startswith("0.9.")
    yield Finding(True, "verl", version + ("" if tested else " (0.9.1 is what is tested)"))
    state = loaded_in_a_new_process()
    how = (
        "VERL_USE_EXTERNAL_MODULES" if _by_variable() else "the entry point verl.plugins (verl 0.9)"
    )
    if not state["loaded"]:
        yield Finding(
            False,
            "loading",
            "a new process that imports verl does not load vrprm_verl: "
            "export VERL_USE_EXTERNAL_MODULES=vrprm_verl (and see VERL_USE_EXTERNAL_PLUGINS), on a "
            "cluster also +ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES="
            "vrprm_verl",
        )
        return
    yield Finding(True, "loading", f"every process that imports verl loads vrprm_verl, by {how}")
    for part, error in state["failures"].items():
        yield Finding(False, part, error)
    estimators = ", ".join(state["estimators"])
    loops = ", ".join(state["loops"])
    yield Finding(bool(estimators), "trainer (TaskRunner)", f"estimators: {estimators or 'none'}")
    manager = "vrprm" if state["manager"] else "none"
    yield Finding(state["manager"], "RewardLoopWorker", f"reward manager: {manager}")
    yield Finding(bool(loops), "AgentLoopWorker", f"agent loops: {loops or 'none'}")
    patches = ", ".join(wanted_patches()) or "none"
    yield Finding(True, "changes to verl", f"{patches} (environment variable {VARIABLE})")


def loaded_in_a_new_process() -> dict[str, Any]:
    """What a process started from here has after `import verl`, as Ray's workers would."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROBE],
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("VRPRM"):
            found: dict[str, Any] = json.loads(line.removeprefix("VRPRM"))
            return found
    raise InputError(f"a new process could not import verl:\n{done.stderr[-2000:]}")


def _by_variable() -> bool:
    return "vrprm_verl" in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(found, Mapping) or "reward" not in found:
        raise InputError(
            f"{path} is no composed configuration of verl: pass .hydra/config.yaml of a run, or "
            "what `python -m verl.trainer.main_ppo ... --cfg job` prints"
        )
    return found
