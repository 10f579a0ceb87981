"""Is the final answer right? Outcome rewards, checked where they cannot stop a training.

Checking runs sympy on text that a policy wrote, which may take for ever or eat the memory. So it
happens in a process of its own, with a time limit.
"""

import asyncio
import importlib.util
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, cast

from vrprm_reward.errors import MissingExtraError
from vrprm_reward.rewards.answers import final_answer, last_line, same_text
from vrprm_reward.rewards.isolated import IsolatedFunction
from vrprm_reward.rewards.isolated_child import verdict

OutcomeFunction = Callable[[str, str], float | Awaitable[float]]
"""Response and reference answer -> a number in [0, 1]; may be a coroutine function."""

OUTCOMES = ("math", "exact", "none")
"""The names that `load_outcome` knows besides `module:function`."""


@dataclass(frozen=True)
class Outcome:
    """Whether a response's final answer is right. Unknown is a state of its own, never 0."""

    value: float | None
    """In [0, 1], 1 for right; None when it is not known."""

    reason: str | None = None
    """A stable short name. With None: why there is no value (`no_reference`,
    `reference_unreadable`, `raised`, `no_outcome`, `off`). With 0: `timeout` or `died` when
    checking did not come to an end, which counts as wrong so that a policy gains nothing by it;
    `no_answer_stated` when `math` or `exact` found no answer in the response."""

    detail: str | None = None
    """The reason in a sentence."""

    @property
    def right(self) -> bool:
        """Whether the value is known and at least one half."""
        return self.value is not None and self.value >= 0.5


class OutcomeCheck(Protocol):
    """Anything that says whether a response is right."""

    async def acheck(self, response: str, reference: str | None) -> Outcome:
        """The outcome. Never blocks the event loop and never raises for a single response."""
        ...


def load_outcome(
    outcome: str | OutcomeFunction, *, timeout: float = 10.0, workers: int = 2
) -> OutcomeCheck:
    """A check by name, or around the user's own function.

    Args:
        outcome: `math`: the stated final answer as text where text decides (options, plain words;
            see `answers.text_verdict`), else by math-verify (extra `outcome`); a percentage
            equals its hundredth part, and from 1% on its number without the sign too (`50%`
            equals `0.5` and `50`); `exact`: the stated final answer equals the reference as text.
            Where no answer is stated, both take the last line for it;
            `none`: always unknown; `module:function`: imported and called in a process of its
            own; or a function, which is called in a thread, or awaited.
        timeout: seconds for one check.
        workers: most processes.

    Raises:
        ValueError: the name is none of these.
        MissingExtraError: math-verify is not installed.
    """
    if callable(outcome):
        return _Called(outcome, timeout)
    if outcome == "none":
        return _Unknown()
    if outcome == "exact":
        return _Exact()
    if outcome == "math" and importlib.util.find_spec("math_verify") is None:
        raise MissingExtraError(
            "the outcome 'math' needs math-verify: pip install 'vrprm-reward[outcome]', or choose "
            "another outcome (exact, none, module:function)"
        )
    if outcome == "math" or ":" in outcome:
        function = IsolatedFunction(outcome, timeout=timeout, workers=workers)
        return _Math(function) if outcome == "math" else _Isolated(function)
    raise ValueError(
        f"unknown outcome {outcome!r}; choose one of {', '.join(OUTCOMES)}, or name your own "
        "function as module:function"
    )


_NO_REFERENCE = Outcome(
    None,
    "no_reference",
    "the problem has no reference answer: give it one, or choose the combination 'process'",
)


class _Unknown:
    async def acheck(self, response: str, reference: str | None) -> Outcome:  # noqa: ARG002
        return Outcome(None, "off", "no outcome is checked")


def _unless_stated(response: str) -> Outcome:
    """Wrong; with the reason where no answer is stated that could be right."""
    if final_answer(response) is not None:
        return Outcome(0.0)
    return Outcome(
        0.0,
        "no_answer_stated",
        "the response states no answer: have the policy write it in \\boxed{...}, in "
        "<answer>...</answer>, or behind 'The answer is'",
    )


class _Exact:
    async def acheck(self, response: str, reference: str | None) -> Outcome:
        if reference is None or not reference.strip():
            return _NO_REFERENCE
        stated = final_answer(response)
        found = last_line(response) if stated is None else stated
        return Outcome(1.0) if same_text(found, reference) else _unless_stated(response)


class _Isolated:
    def __init__(self, function: IsolatedFunction) -> None:
        self._function = function

    async def acheck(self, response: str, reference: str | None) -> Outcome:
        if reference is None:
            return _NO_REFERENCE
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._function.executor, self._function, response, reference
        )
        if found.reason in ("timeout", "died"):
            return Outcome(0.0, found.reason, found.detail)
        return Outcome(found.value, found.reason, found.detail)

    def close(self) -> None:
        self._function.close()


class _Math(_Isolated):
    async def acheck(self, response: str, reference: str | None) -> Outcome:
        if reference is None or not reference.strip():
            return _NO_REFERENCE
        found = await super().acheck(response, reference)
        wrong = found.value == 0 and found.reason is None
        return _unless_stated(response) if wrong else found


class _Called:
    """A function in this process. A thread that is late is left behind, and holds up nobody."""

    def __init__(self, function: OutcomeFunction, timeout: float) -> None:
        self._function = function
        self._timeout = timeout

    async def acheck(self, response: str, reference: str | None) -> Outcome:
        if reference is None:
            return _NO_REFERENCE
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._called(response, reference)
        except TimeoutError:
            return Outcome(0.0, "timeout", f"no outcome within {self._timeout:g} s")
        return Outcome(**found)

    async def _called(self, response: str, reference: str) -> dict[str, Any]:
        if inspect.iscoroutinefunction(self._function):
            try:
                value = await cast("Awaitable[float]", self._function(response, reference))
            except TimeoutError:
                raise
            except Exception as error:  # noqa: BLE001  somebody else's function
                detail = f"{type(error).__name__}: {error}"
                return {"value": None, "reason": "raised", "detail": detail}
            return verdict(lambda *_: value, response, reference)
        done: Future[dict[str, Any]] = Future()
        done.set_running_or_notify_cancel()  # from here on it is only finished, never cancelled

        def work() -> None:
            done.set_result(verdict(self._function, response, reference))

        threading.Thread(target=work, daemon=True, name="vrprm-outcome").start()
        return await asyncio.wrap_future(done)
