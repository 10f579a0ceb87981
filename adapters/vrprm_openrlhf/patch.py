"""The patch of OpenRLHF's experience maker: step rewards go in, masked rollouts stay out.

What OpenRLHF computes stays as it is: its baseline of the scalar reward, KL, clipping, length
penalties, returns and whitening. Added are

- step rewards, to the per-token rewards that the returns are computed from;
- for masked rollouts: the scalar reward becomes the mean of the others of their group, after the
  length penalties, so that it moves no mean; their tokens stay out of the whitening; their
  advantages are 0.

A batch without any key of ours passes through untouched.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

import torch

from vrprm_openrlhf.batch import BatchPlan, fill_masked
from vrprm_openrlhf.errors import IncompatibleOpenRLHFError, StepRewardsError
from vrprm_openrlhf.settings import TrainerSettings

_PLAN = "_vrprm_plan"

_EXPECTED = {
    "compute_advantages_and_returns": ["self", "experiences"],
    "get_advantages_and_returns": [
        "self",
        "values",
        "rewards",
        "action_mask",
        "gamma",
        "lambd",
    ],
    "get_cumulative_returns": ["self", "rewards", "action_mask", "gamma"],
}
_PENALTIES = "apply_length_penalties"


def patch_module(module: ModuleType) -> None:
    """Patch `openrlhf.trainer.ppo_utils.experience_maker`, which has just been imported.

    Raises:
        IncompatibleOpenRLHFError: its methods do not look as they do in 0.10.2 to 0.11.2.
    """
    maker = getattr(module, "RemoteExperienceMaker", None)
    _check(module, maker)
    assert maker is not None
    for name, wrap in [
        ("compute_advantages_and_returns", _compute),
        ("get_advantages_and_returns", _advantages),
        ("get_cumulative_returns", _returns),
    ]:
        setattr(maker, name, wrap(getattr(maker, name)))
    setattr(module, _PENALTIES, _penalties(getattr(module, _PENALTIES)))


def _check(module: ModuleType, maker: Any) -> None:
    for name, expected in _EXPECTED.items():
        method = inspect.unwrap(getattr(maker, name, None) or (lambda: None))
        found = list(inspect.signature(method).parameters)
        if found != expected:
            raise _incompatible(f"RemoteExperienceMaker.{name} takes {found}, not {expected}")
    penalties = getattr(module, _PENALTIES, None)
    if penalties is None or list(inspect.signature(penalties).parameters) != [
        "experiences",
        "args",
    ]:
        raise _incompatible(f"{_PENALTIES}(experiences, args) is not there")


def _incompatible(what: str) -> IncompatibleOpenRLHFError:
    return IncompatibleOpenRLHFError(
        f"openrlhf {_version()} is not a version that vrprm_openrlhf can put step rewards into: "
        f"{what}. Versions 0.10.2 to 0.11.2 are known; leave the hook out to train with scalar "
        "rewards"
    )


def _version() -> str:
    try:
        return metadata.version("openrlhf")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _compute(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def compute_advantages_and_returns(self: Any, experiences: Sequence[Any]) -> Any:
        plan = BatchPlan.of(experiences, self.args, TrainerSettings.from_environment)
        if plan is None:
            return original(self, experiences)
        setattr(self, _PLAN, plan)
        try:
            with plan.masked_tokens_out():
                found = original(self, experiences)
        finally:
            delattr(self, _PLAN)
        plan.finish()
        return found

    return compute_advantages_and_returns


def _advantages(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_advantages_and_returns(
        self: Any, values: Any, rewards: Any, action_mask: Any, gamma: float, lambd: float
    ) -> Any:
        added = _with_steps(self, rewards, action_mask, gamma)
        return original(self, values, added, action_mask, gamma, lambd)

    return get_advantages_and_returns


def _returns(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_cumulative_returns(self: Any, rewards: Any, action_mask: Any, gamma: float) -> Any:
        added = _with_steps(self, rewards, action_mask, gamma)
        return original(self, added, action_mask, gamma)

    return get_cumulative_returns


def _with_steps(maker: Any, rewards: torch.Tensor, mask: torch.Tensor, gamma: float) -> Any:
    plan: BatchPlan | None = getattr(maker, _PLAN, None)
    return rewards if plan is None else rewards + plan.take(mask, gamma).to(rewards)


def _penalties(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply_length_penalties(experiences: Sequence[Any], args: Any) -> Any:
        found = original(experiences, args)
        fill_masked(experiences, args)
        return found

    return apply_length_penalties


__all__ = ["StepRewardsError", "patch_module"]
