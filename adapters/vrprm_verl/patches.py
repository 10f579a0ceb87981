"""Two opt-in changes to verl, for what its configuration cannot reach. Named in an environment
variable, so that every process of a run makes the same ones: `VRPRM_VERL_PATCHES=fallback,metrics`.

`fallback`: dense rewards under agent loops of your own, without subclassing anything.
`metrics`: what `vrprm_reward.rewards.metrics` counts, in verl's logger.

Both replace a method by one that calls the original, and refuse to load where it is not there.
"""

import functools
import os
from collections.abc import Iterable
from typing import Any

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.metrics import batch_metrics
from vrprm_verl.row import ROW, Row, row_in

VARIABLE = "VRPRM_VERL_PATCHES"
PATCHES = ("fallback", "metrics")

_MARK = "_vrprm_original"


def wanted_patches() -> tuple[str, ...]:
    """The names in the environment variable. Raises `InputError` for an unknown one."""
    names = tuple(filter(None, (name.strip() for name in os.environ.get(VARIABLE, "").split(","))))
    unknown = sorted(set(names) - set(PATCHES))
    if unknown:
        raise InputError(f"{VARIABLE} names {unknown[0]!r}; known are {', '.join(PATCHES)}")
    return names


def apply_patches() -> None:
    """Make the wanted changes in this process. Doing it twice changes nothing."""
    names = wanted_patches()
    if "fallback" in names:
        patch_agent_loops()
    if "metrics" in names:
        patch_metrics()


def is_patched(owner: Any, name: str) -> bool:
    """Whether a method of verl is one of ours."""
    return hasattr(getattr(owner, name, None), _MARK)


def _wrap(owner: Any, name: str, wrapper: Any) -> None:
    original = getattr(owner, name, None)
    if original is None:
        raise InputError(
            f"this verl has no {owner.__name__}.{name}: take {VARIABLE} out and use the agent "
            "loops or the agent loop manager of vrprm_verl"
        )
    if hasattr(original, _MARK):
        return
    wrapped = functools.wraps(original)(wrapper(original))
    setattr(wrapped, _MARK, original)
    setattr(owner, name, wrapped)


def patch_agent_loops() -> None:
    """Dense rewards for every agent loop, on both trainers."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, AgentLoopWorker

    from vrprm_verl.agent_loop import with_dense_scores
    from vrprm_verl.agent_loop_manager import place_in_batch
    from vrprm_verl.reward import MASK

    def as_dict(original: Any) -> Any:
        return lambda self: with_dense_scores(original(self))

    def postprocess(original: Any) -> Any:
        return lambda self, *args, **kwargs: place_in_batch(original(self, *args, **kwargs))

    def compute_score(original: Any) -> Any:
        async def score(self: Any, outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
            for output in outputs:
                output.extra_fields[MASK] = list(output.response_mask)
            return await original(self, outputs, *args, **kwargs)

        return score

    _wrap(AgentLoopOutput, "as_dict", as_dict)
    _wrap(AgentLoopWorker, "_postprocess", postprocess)
    _wrap(AgentLoopWorker, "_compute_score", compute_score)


def patch_metrics() -> None:
    """Training metrics of the rows, on both trainers."""
    from verl.trainer.ppo import ray_trainer

    def data_metrics(original: Any) -> Any:
        def compute(batch: Any, *args: Any, **kwargs: Any) -> Any:
            texts = batch.non_tensor_batch.get(ROW, ())
            rows = [Row.from_json(str(text)) for text in texts]
            return {**original(batch, *args, **kwargs), **row_metrics(rows)}

        return compute

    _wrap(ray_trainer, "compute_data_metrics", data_metrics)
    try:
        import transfer_queue as tq
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer

        from vrprm_verl.reward import is_colocated
    except ModuleNotFoundError:
        return  # verl 0.8 has the V0 trainer only

    def v1_metrics(original: Any) -> Any:
        def compute(self: Any, batch: Any, metrics: dict[str, Any], *args: Any, **kw: Any) -> Any:
            found = original(self, batch, metrics, *args, **kw)
            metrics.update(row_metrics(_rows_in_queue(tq, batch, is_colocated(self.config))))
            return found

        return compute

    _wrap(PPOTrainer, "_compute_metrics", v1_metrics)


def _rows_in_queue(tq: Any, batch: Any, colocated: bool) -> list[Row]:
    """The rows of a V1 batch: one for each trajectory, and no padding, which is a copy of one."""
    keys = _last_outputs(
        key
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if not tag.get("is_padding", False)
    )
    field = ROW if colocated else "extra_fields"
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=[field])
    values = list(data[field])
    if colocated:
        return [Row.from_json(str(text)) for text in values]
    rows = [row_in((each or {}).get("reward_extra_info")) for each in values]
    return [row for row in rows if row is not None]


def _last_outputs(keys: Iterable[str]) -> list[str]:
    """Of keys `uid_session_index`, the last output of each trajectory: the one that was judged."""
    last: dict[str, tuple[int, str]] = {}
    for key in keys:
        trajectory, _, index = key.rpartition("_")
        place = int(index) if index.isdigit() else 0
        if trajectory not in last or place > last[trajectory][0]:
            last[trajectory] = place, key
    return [key for _, key in last.values()]


def row_metrics(rows: Iterable[Row]) -> dict[str, float]:
    """Metrics of training rows, keyed `vrprm/...`."""
    training = [row for row in rows if not row.validation]
    return batch_metrics(
        [row.reward for row in training], seconds=[row.seconds for row in training]
    )
