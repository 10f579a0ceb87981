"""The patch of OpenRLHF's own executor: a reward that could not be had stops the run at once.

OpenRLHF logs that a remote reward failed, and goes on without one; the trainer then ends with
`reward_model_group is required`, or an attribute error, far from the cause.
"""

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from vrprm_openrlhf.errors import IncompatibleOpenRLHFError, UnscoredError


def patch_module(module: ModuleType) -> None:
    """Patch `openrlhf.utils.agent`, which has just been imported.

    Raises:
        IncompatibleOpenRLHFError: there is no `SingleTurnAgentExecutor.execute` in it.
    """
    executor = getattr(module, "SingleTurnAgentExecutor", None)
    execute = getattr(executor, "execute", None)
    if executor is None or not inspect.iscoroutinefunction(execute):
        raise IncompatibleOpenRLHFError(
            "this version of openrlhf has no coroutine SingleTurnAgentExecutor.execute: versions "
            "0.10.2 to 0.11.2 are known"
        )
    executor.execute = _checked(execute)


def _checked(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = await original(self, *args, **kwargs)
        if self.reward_endpoints and output.get("reward") is None:
            raise UnscoredError(
                f"no reward came from {', '.join(map(str, self.reward_endpoints))}: the worker's "
                "log says what failed (labels without question and images are refused with 422); a "
                "server that is up answers every rollout, so see that it is, and that its URL ends "
                "in /get_reward"
            )
        return output

    return execute
