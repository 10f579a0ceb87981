"""What happens in each of verl's processes when it loads this package."""

import importlib
import logging
import re
from types import MappingProxyType

from vrprm_reward.errors import MissingExtraError

_log = logging.getLogger(__name__)

OLDEST = (0, 8)
"""The oldest verl whose reward loop has the hooks that this package uses."""

PARTS = MappingProxyType(
    {
        "estimators": "vrprm_verl.estimators",
        "reward manager": "vrprm_verl.reward",
        "agent loops": "vrprm_verl.agent_loop",
        "agent loop manager": "vrprm_verl.agent_loop_manager",
    }
)

failures: dict[str, str] = {}
"""Parts that could not be loaded in this process, with the error. `doctor` shows them."""


def load(version: str) -> None:
    """Register everything in this process.

    A part whose imports fail here (a worker without `hydra`, say) is left out with a warning, so
    that the others load. Whatever else fails is logged as an error before it is raised: verl logs
    a plugin that fails at DEBUG and goes on.

    Raises:
        MissingExtraError: verl is too old.
        InputError: `VRPRM_VERL_PATCHES` names something unknown.
    """
    try:
        _load(version)
    except Exception:
        _log.exception("vrprm_verl is not loaded in this process: no step will be credited")
        raise


def _load(version: str) -> None:
    if version_of(version) < OLDEST:
        raise MissingExtraError(
            f"verl {version} is too old for dense rewards without changes to verl: install "
            f"verl>={'.'.join(map(str, OLDEST))}"
        )
    failures.clear()
    for part, module in PARTS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            failures[part] = f"{type(error).__name__}: {error}"
            _log.warning("vrprm_verl: %s not loaded in this process: %s", part, error)
    if "estimators" not in failures:
        from vrprm_verl.estimators import register

        register()
    from vrprm_verl.patches import apply_patches

    apply_patches()


def version_of(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as `0.9.1` or `0.10.0.dev`."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise MissingExtraError(f"{version!r} is no version of verl that could be checked")
    return int(found[1]), int(found[2])
