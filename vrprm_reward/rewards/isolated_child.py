"""The child of `isolated.py`: reads `[response, reference]` lines, writes verdicts.

python -m vrprm_reward.rewards.isolated_child math|module:function SECONDS
"""

import importlib
import json
import logging
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from vrprm_reward.rewards.answers import (
    answer_part,
    final_answer,
    last_line,
    percentage,
    text_verdict,
)

MAX_BYTES = 8 * 2**30
"""Address space of a child; what asks for more fails by itself instead of taking the machine."""


def load_function(name: str) -> Callable[[str, str], Any]:
    """`math`, or the function that `module:function` names. Raises `ImportError`."""
    if name == "math":
        return _load_math()
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not callable(found):
        raise ImportError(f"module {module!r} has no function {attribute!r}")
    function: Callable[[str, str], Any] = found
    return function


def _load_math() -> Callable[[str, str], float | str]:
    from math_verify import parse, verify

    # The parent ends this process in time; the library's own timers would call a late answer wrong.
    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def check(response: str, reference: str) -> float | str:
        stated = final_answer(response)
        known = text_verdict(last_line(response) if stated is None else stated, reference)
        if known or (known is False and stated is not None):
            return float(known)
        gold_percent = percentage(reference)
        percent = None if stated is None else percentage(stated)
        sign_may_lack = gold_percent is None or percent is None
        gold = in_percent(gold_percent, sign_may_lack) if gold_percent else boxed(reference)
        if not gold:
            return "reference_unreadable"
        answer = in_percent(percent, sign_may_lack) if percent else read(answer_part(response))
        if not answer and stated is not None:
            answer = boxed(stated)
        return float(verify(gold, answer, timeout_seconds=None)) if answer else 0.0

    def read(text: str) -> list[Any]:
        found: list[Any] = parse(text, parsing_timeout=None)
        return found

    def boxed(answer: str) -> list[Any]:
        return read(answer if "\\boxed" in answer else f"\\boxed{{{answer.strip().strip('$')}}}")

    def in_percent(number: str, sign_may_lack: bool) -> list[Any]:
        """What `number` percent equals. math-verify reads a percentage outside of boxes only."""
        shares = [found for found in read(f"{number}%") if not isinstance(found, str)]
        bare = [found for found in read(number) if not isinstance(found, str)]
        large = [found for found in bare if sign_may_lack and abs(found) >= 1]
        return [*shares, *large, f"{number}\\%"]

    return check


def verdict(function: Callable[[str, str], Any], response: str, reference: str) -> dict[str, Any]:
    """`value` in [0, 1], or `reason` and `detail`."""
    try:
        value = function(response, reference)
    except Exception as error:  # noqa: BLE001  somebody else's function; reported as it is
        return {"value": None, "reason": "raised", "detail": f"{type(error).__name__}: {error}"}
    if isinstance(value, str):
        return {"value": None, "reason": value, "detail": f"reference answer {reference!r}"}
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:
        return {"value": None, "reason": "no_outcome", "detail": f"{value!r} is not in [0, 1]"}
    return {"value": number}


def main() -> None:
    """Serve until the parent closes the pipe."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the function prints does not belong into the answers
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))

    def write(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        function = load_function(name)
    except Exception as error:  # noqa: BLE001  importing runs anything; the parent raises it
        write({"error": f"{type(error).__name__}: {error}"})
        return
    write({"ready": True})
    for line in sys.stdin:
        # Without its parent nobody would end this process: the alarm does.
        signal.alarm(math.ceil(seconds) + 5)
        response, reference = json.loads(line)
        write(verdict(function, response, reference))
        signal.alarm(0)


if __name__ == "__main__":
    main()
