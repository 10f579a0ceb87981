"""What is in place for a run with OpenRLHF here? `vrprm-reward doctor openrlhf`."""

import importlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vrprm_openrlhf.hook import install
from vrprm_openrlhf.settings import PREFIX, Settings
from vrprm_reward.connections import bearer_token
from vrprm_reward.errors import InputError

KNOWN = ((0, 10, 2), (0, 11, 2))
"""First and last version of OpenRLHF that this adapter was written for; the last is tested."""

_SECONDS = 10.0


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    """Its name."""

    ok: bool
    """Whether it is as it has to be."""

    detail: str
    """What was found, and what to do if it is not."""


def examine(config: Path | None = None) -> list[Finding]:
    """Look at everything that can be seen from here. Patches OpenRLHF in this process.

    Raises:
        InputError: a configuration file, which OpenRLHF has not.
    """
    if config is not None:
        raise InputError("OpenRLHF has no configuration file: leave --config out")
    return list(_findings())


def _findings() -> Iterator[Finding]:
    yield _version()
    yield _methods()
    yield _launch()
    settings = _settings()
    if isinstance(settings, Finding):
        yield settings
        return
    rule = settings.rule
    yield Finding(
        "settings",
        True,
        f"{settings.mode}, {rule.combination}, outcome {settings.outcome}, "
        + (
            f"credit {rule.credit}, advantage {settings.advantage}"
            if settings.mode == "dense"
            else f"aggregation {settings.aggregation}, unscored_reward {settings.unscored_reward}"
        ),
    )
    yield _server(settings)


def _version() -> Finding:
    try:
        found = metadata.version("openrlhf")
    except metadata.PackageNotFoundError:
        return Finding("openrlhf", False, "not installed in this environment")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    first, last = (".".join(map(str, version)) for version in KNOWN)
    if numbers < KNOWN[0]:
        return Finding("openrlhf", False, f"{found}: {first} is the first version that fits")
    tested = "" if numbers <= KNOWN[1] else f", newer than {last}, the last one tested"
    return Finding("openrlhf", True, found + tested)


def _methods() -> Finding:
    install()
    name = "openrlhf.trainer.ppo_utils.experience_maker"
    try:
        importlib.import_module(name)
        importlib.import_module("openrlhf.utils.agent")
    except ImportError as error:
        return Finding("dense hook", False, f"{name} cannot be patched here: {error}")
    return Finding("dense hook", True, "OpenRLHF's methods are those that it knows")


def _launch() -> Finding:
    hook = os.environ.get("RAY_RUNTIME_ENV_HOOK")
    if hook == "vrprm_openrlhf.runtime_env_hook":
        return Finding("launch", True, "RAY_RUNTIME_ENV_HOOK installs the hook in every worker")
    if hook:
        return Finding("launch", False, f"RAY_RUNTIME_ENV_HOOK is {hook!r}, which is not ours")
    return Finding(
        "launch",
        True,
        "RAY_RUNTIME_ENV_HOOK is not set: fine for scalar rewards, and where ray job submit is "
        'given {"worker_process_setup_hook": "vrprm_openrlhf.install"}',
    )


def _settings() -> Settings | Finding:
    try:
        settings = Settings.from_environment()
        _ = _token(settings)
    except InputError as error:
        return Finding("settings", False, str(error))
    return settings


def _token(settings: Settings) -> str | None:
    return bearer_token(settings.token or os.environ.get("VRPRM_TOKEN"), "the server's token")


def _server(settings: Settings) -> Finding:
    request = urllib.request.Request(settings.url.rstrip("/") + "/ready")
    token = _token(settings)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if not settings.url.startswith(("http://", "https://")):
        return Finding("server", False, f"{PREFIX}URL is {settings.url!r}, which is no http URL")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return Finding("server", True, f"{settings.url} is ready")
    except urllib.error.HTTPError as error:
        return Finding("server", False, f"{settings.url}/ready answers {error.code}")
    except OSError as error:
        return Finding("server", False, f"{settings.url} cannot be reached: {error}")
