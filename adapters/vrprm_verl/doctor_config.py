"""What `vrprm-reward doctor verl` finds in a run's composed configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import verl
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.combine import check_fit
from vrprm_verl.estimators import NAMES, PREFIX
from vrprm_verl.patches import VARIABLE, wanted_patches
from vrprm_verl.plugin import version_of
from vrprm_verl.settings import (
    CUSTOM_FUNCTION,
    RewardSettings,
    algorithm_settings,
    reward_settings,
)

V1_LOOPS = ("vrprm_single_turn_agent", "vrprm_tool_agent")
V0_MANAGER = "vrprm_verl.agent_loop_manager.DenseAgentLoopManager"
KEEP_POSITIONS = (
    "gae",
    "reinforce_plus_plus",
    "remax",
    "optimal_token_baseline",
    "tir_optimal_token_baseline",
)
"""verl's own estimators that use where in the response a reward stands."""

SUMMING = (
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "reinforce_plus_plus_baseline",
    "rloo",
    "rloo_vectorized",
    "opo",
    "gpg",
)
"""verl's own estimators that sum a response's rewards. That loses nothing where the combination is
`outcome` or `ps_grpo`, which give a single one."""

V0_ONLY = ("remax", "optimal_token_baseline", "tir_optimal_token_baseline")
"""Those for which the V1 trainer of verl 0.9 does not fetch what they need."""

_FIRST_ROWS = 1000
"""How many rows of a training file are looked at."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    ok: bool
    what: str
    detail: str
    """What was found and, where it is not ok, what to write instead."""


def examine_config(config: Mapping[str, Any]) -> list[Finding]:
    """Look at a composed configuration."""
    return [
        *_ignored(config),
        *_manager(config),
        *_settings(config),
        *_placement(config),
        *_estimator(config),
    ]


def _get(config: Mapping[str, Any], path: str) -> Any:
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _ignored(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Keys of before verl 0.8 that 0.9 composes and does not read."""
    if version_of(verl.__version__) < (0, 9):
        return
    for place in ("custom_reward_function", "reward_model", "sandbox_fusion"):
        for path, value in _leaves(config.get(place), place):
            if value is not None:
                yield Finding(
                    False,
                    path,
                    f"is {value!r}, and verl {verl.__version__} ignores it: write it below reward.",
                )


def _leaves(config: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _leaves(value, f"{place}.{name}")
    else:
        yield place, config


def _manager(config: Mapping[str, Any]) -> Iterator[Finding]:
    name = _get(config, "reward.reward_manager.name")
    ours = name in ("vrprm", "VRPRMRewardManager")
    yield Finding(
        ours,
        "reward.reward_manager.name",
        str(name) if ours else f"{name}: this package's manager is not used; set it to vrprm",
    )
    if _get(config, "reward.reward_model.enable"):
        path = _get(config, "reward.custom_reward_function.path")
        yield Finding(
            path is not None,
            "reward.custom_reward_function.path",
            str(path)
            if path is not None
            else "is not set, so verl passes the reward manager by and asks its reward model for a "
            "class: set it to pkg://vrprm_verl.score",
        )


def _settings(config: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        settings = reward_settings(_get(config, "reward.vrprm"))
        algorithm_settings(_get(config, "algorithm.vrprm"))
    except InputError as error:
        yield Finding(False, "settings", str(error))
        return
    rule = f"{settings.combination}, credit {settings.credit}, outcome {settings.outcome}"
    try:
        name = str(_get(config, "algorithm.adv_estimator"))
        check_fit(settings, name.removeprefix(PREFIX))
        yield Finding(True, "reward rule", rule)
    except InputError as error:
        yield Finding(False, "reward rule", f"{rule}: {error}")
    hosted = bool(_get(config, "reward.reward_model.enable"))
    if settings.url is None:
        yield Finding(
            hosted,
            "who scores",
            f"verl's own servers, under the profile {settings.profile}"
            if hosted
            else "nobody: set +reward.vrprm.url=http://host:port",
        )
    elif not settings.url.startswith("openai+"):
        yield _reachable(settings.url)
    if settings.outcome == CUSTOM_FUNCTION:
        yield Finding(
            _get(config, "reward.custom_reward_function.path") is not None,
            "outcome",
            "verl's own function, reward.custom_reward_function",
        )
    yield from _validation(settings)
    if settings.validation == "outcome" and settings.needs_process and settings.outcome != "none":
        files = _get(config, "data.train_files") or ()
        for file in (files,) if isinstance(files, str) else files:
            yield _training_rows(str(file), settings)


def _validation(settings: RewardSettings) -> Iterator[Finding]:
    """What validation shows where the rule goes by no outcome: verl puts `acc` first."""
    if settings.needs_outcome:
        return
    score = "score and reward (val-aux) are the sum of a row's process rewards"
    if settings.outcome == "none":
        detail = f"acc (val-core) is 0 on every row and says nothing (outcome=none); {score}"
    elif settings.validation == "full":
        detail = f"acc (val-core) is the outcome, 0 where it is not known; {score}"
    else:
        detail = (
            "acc (val-core), score and reward (val-aux) are the outcome; where a row's outcome is "
            "not known, as without a ground truth, its acc is 0 and says nothing, and score and "
            "reward are the sum of its process rewards. +reward.vrprm.validation=full gives that "
            "sum for every row"
        )
    yield Finding(True, "validation", f"combination=process: {detail}")


def _training_rows(file: str, settings: RewardSettings) -> Finding:
    """Whether training rows would be taken for validation rows."""
    path = Path(file).expanduser()
    if path.suffix != ".parquet" or not path.is_file():
        detail = f"{file} is no parquet file of this machine: its rows were not looked at"
        return Finding(True, "data.train_files", detail)
    try:
        splits = _splits(path)
    except (OSError, ValueError, ArrowException) as error:
        return Finding(False, "data.train_files", f"{file} cannot be read: {error}")
    taken = sorted(splits.intersection(settings.validation_splits))
    if not taken:
        detail = f"{file}: none of its first rows is taken for a validation row"
        return Finding(True, "data.train_files", detail)
    return Finding(
        False,
        "data.train_files",
        f"{file} has rows whose extra_info.split is {', '.join(taken)}: they are taken for "
        "validation rows and rewarded by their outcome alone; set +reward.vrprm.validation=full, "
        "which scores every row in full",
    )


def _splits(path: Path) -> set[str]:
    """What `extra_info.split` is in a file's first rows; of these, only that is read."""
    with ParquetFile(path) as file:
        batch = next(file.iter_batches(_FIRST_ROWS, columns=["extra_info.split"]), None)
    if batch is None or "extra_info" not in batch.schema.names:
        return set()
    rows = batch.column("extra_info").to_pylist()
    return {str(row["split"]) for row in rows if row is not None}


def _reachable(url: str) -> Finding:
    try:
        status = httpx2.get(url.rstrip("/") + "/ready", timeout=10).status_code
    except httpx2.HTTPError as error:
        return Finding(False, "who scores", f"{url} cannot be reached from here ({error})")
    words = f"{url} is " + ("ready" if status == 200 else f"not ready (status {status})")
    return Finding(status == 200, "who scores", words)


def _placement(config: Mapping[str, Any]) -> Iterator[Finding]:
    agent = "actor_rollout_ref.rollout.agent"
    if "fallback" in wanted_patches():
        yield Finding(True, "placement", f"any agent loop, by {VARIABLE}=fallback")
        return
    v1 = _is_v1(config)
    if _get(config, "reward.reward_model.enable") and not _get(
        config, "reward.reward_model.enable_resource_pool"
    ):
        detail = "by the reward manager, after generation (colocated reward model)"
        loop = _get(config, f"{agent}.default_agent_loop")
        if v1 and loop not in V1_LOOPS:
            yield Finding(
                False,
                f"{agent}.default_agent_loop",
                f"{loop}: the V1 trainer hands a colocated reward model no ground truth, and only "
                f"this package's loops pass it on: {' or '.join(V1_LOOPS)}",
            )
        yield Finding(True, "placement", detail)
        return
    key = f"{agent}.default_agent_loop" if v1 else f"{agent}.agent_loop_manager_class"
    value = _get(config, key)
    good = V1_LOOPS if v1 else (V0_MANAGER,)
    yield Finding(
        value in good,
        key,
        str(value)
        if value in good
        else f"{value}: the rewards of all steps end up on the last token; set it to "
        f"{' or '.join(good)} (a data column agent_name wins over it)",
    )


def _is_v1(config: Mapping[str, Any]) -> bool:
    return version_of(verl.__version__) >= (0, 9) and _get(config, "trainer.use_v1") is not False


def _combination(config: Mapping[str, Any]) -> str | None:
    """The rule's name; None where the settings are wrong, which another finding says."""
    try:
        return reward_settings(_get(config, "reward.vrprm")).combination
    except InputError:
        return None


def _estimator(config: Mapping[str, Any]) -> Iterator[Finding]:
    name = _get(config, "algorithm.adv_estimator")
    if name in NAMES and _get(config, "actor_rollout_ref.rollout.n") == 1:
        yield Finding(
            False,
            "actor_rollout_ref.rollout.n",
            f"1: {name} compares the responses to a prompt, so nothing would be learnt; raise it",
        )
    elif name in NAMES:
        detail = f"{name}: a credit for every step; masked rows are left out and counted"
        yield Finding(True, "algorithm.adv_estimator", detail)
    elif name in V0_ONLY and _is_v1(config):
        yield Finding(
            False,
            "algorithm.adv_estimator",
            f"{name}: verl's V1 trainer stops at its first step, since it does not fetch what this "
            f"estimator needs; choose {NAMES[0]}, or trainer.use_v1=False",
        )
    elif name in KEEP_POSITIONS:
        detail = f"{name}: keeps positions; a masked row counts as a response of reward 0"
        yield Finding(True, "algorithm.adv_estimator", detail)
    elif name in SUMMING and _combination(config) in ("outcome", "ps_grpo"):
        yield Finding(
            True,
            "algorithm.adv_estimator",
            f"{name}: sums a response's rewards, of which {_combination(config)} gives one; a "
            "masked row counts as a response of reward 0, and no share of them ends the run: watch "
            f"vrprm/masked_share ({VARIABLE}=metrics)",
        )
    else:
        yield Finding(
            False,
            "algorithm.adv_estimator",
            f"{name}: sums a response's rewards, so steps are not credited and a masked row counts "
            f"as one of reward 0; choose {NAMES[0]}",
        )
    filters = "algorithm.filter_groups"
    if _get(config, f"{filters}.enable") and _get(config, f"{filters}.metric") == "reward":
        yield Finding(
            False,
            f"{filters}.metric",
            "reward: sums what stands on the tokens, where a step that earned 0 is 1e-30, so that "
            "groups with nothing to learn from are kept; set it to score",
        )
    if _get(config, "algorithm.use_kl_in_reward"):
        yield Finding(
            False,
            "algorithm.use_kl_in_reward",
            "True: a penalty on every token hides the steps; set it to False and "
            "actor_rollout_ref.actor.use_kl_loss=True",
        )
