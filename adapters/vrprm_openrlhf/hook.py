"""How step rewards get into OpenRLHF's trainer process: a hook that Ray runs in every worker.

The trainer is a Ray actor, so patching a class in the process that was launched is not enough.
`install` waits for OpenRLHF's modules to be imported and patches them then; a process that never
imports them pays nothing. Standard library only: this runs before torch and OpenRLHF are there.
"""

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

SETUP_HOOK = "worker_process_setup_hook"
PREFIX = "VRPRM_OPENRLHF_"

_PATCHES = {
    "openrlhf.trainer.ppo_utils.experience_maker": ("vrprm_openrlhf.patch", "patch_module"),
    "openrlhf.utils.agent": ("vrprm_openrlhf.missing_reward", "patch_module"),
}
"""Module of OpenRLHF -> the function of ours that patches it when it has been imported."""


def install() -> None:
    """Patch OpenRLHF in this process, now or when it is imported. Once is enough, twice is fine.

    Raises:
        IncompatibleOpenRLHFError: OpenRLHF is imported already, and its methods look different.
    """
    if installed():
        return
    sys.meta_path.insert(0, _Finder())
    for name in _PATCHES:
        module = sys.modules.get(name)
        if module is not None:
            _patch(module)


def installed() -> bool:
    """Whether `install` ran in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def runtime_env_hook(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """For RAY_RUNTIME_ENV_HOOK: the runtime environment of a job, with `install` in every worker.

    The variables VRPRM_OPENRLHF_* of the launching process go along, so that all workers have the
    same settings. A token does not: Ray shows these variables to everyone.

    Raises:
        RuntimeError: the environment has another worker_process_setup_hook already.
    """
    found = dict(runtime_env or {})
    wanted = "vrprm_openrlhf.install"
    if found.get(SETUP_HOOK, wanted) != wanted:
        raise RuntimeError(
            f"the runtime environment has the {SETUP_HOOK} {found[SETUP_HOOK]!r} already, and Ray "
            "takes one: call vrprm_openrlhf.install() in it, and leave RAY_RUNTIME_ENV_HOOK out"
        )
    own = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    found["env_vars"] = {**own, **found.get("env_vars", {})}
    found[SETUP_HOOK] = wanted
    return found


def _patch(module: ModuleType) -> None:
    home, function = _PATCHES[module.__name__]
    patch: Callable[[ModuleType], None] = getattr(importlib.import_module(home), function)
    patch(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself; wraps the loaders of the modules that are to be patched."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """A loader that patches what it has loaded."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _patch(module)

    def __getattr__(self, name: str) -> Any:
        # get_source, get_filename and the like, for inspect and tracebacks.
        return getattr(self._loader, name)
