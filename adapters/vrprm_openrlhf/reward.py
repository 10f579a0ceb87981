"""The reward function: a scalar for each rollout, for OpenRLHF's own executor.

It is called from threads, with one rollout at a time; question, images and answer stand in the
label (`vrprm-reward openrlhf-data`).
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any

from vrprm_openrlhf.errors import OpenRLHFError, RunStopped
from vrprm_openrlhf.hook import installed
from vrprm_openrlhf.judge import Judge, Judged
from vrprm_openrlhf.settings import PREFIX, Settings
from vrprm_reward.background import BackgroundLoop
from vrprm_reward.errors import InputError, LabelError, VRPRMError
from vrprm_reward.openrlhf_wire import read_label, response_of
from vrprm_reward.types import Problem, Rollout

_log = logging.getLogger(__name__)


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]
) -> dict[str, Any]:
    """What OpenRLHF reads: `rewards`, `scores` and `extra_logs`, lists as long as `queries`.

    Raises:
        RunStopped: a setting, a label or the reward server is wrong, and the run cannot go on. Not
            an `Exception`, because OpenRLHF would hide that.
    """
    try:
        judge, loop = _judge_here()
        judged = [
            _judged(judge, loop, query, prompt, label)
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
    except VRPRMError as error:
        _log.error("the reward function stops this run: %s", error)
        raise RunStopped(str(error)) from error
    numbers = [each.numbers() for each in judged]
    keys = numbers[0] if numbers else {}
    return {
        "rewards": [each.scalar for each in judged],
        "scores": [each.filter_score for each in judged],
        "extra_logs": {key: [each[key] for each in numbers] for key in keys},
    }


@functools.cache
def _judge_here() -> tuple[Judge, BackgroundLoop]:
    settings = Settings.from_environment()
    if settings.mode == "dense":
        raise OpenRLHFError(
            f"{PREFIX}MODE is dense, and a reward function can only return a number: pass the "
            'agent instead, --train.agent_func_path "$(vrprm-reward openrlhf path agent)"'
        )
    return Judge(settings, masks=installed()), BackgroundLoop()


def _judged(judge: Judge, loop: BackgroundLoop, query: str, prompt: str, label: Any) -> Judged:
    row = read_label(label)
    if not row.images:
        raise LabelError(
            "images is missing: a reward function gets no images from OpenRLHF, so the label has "
            "to name them (vrprm-reward openrlhf-data writes such labels)"
        )
    response = response_of(query, prompt)
    if response is None:
        return judge.unscored("prompt_mismatch", "the query does not begin with its prompt")
    try:
        problem = Problem(question=row.question, images=row.images, reference_answer=row.answer)
    except ValueError as error:
        raise InputError(f"the label is no problem: {error}") from None
    return loop.run(judge.ajudge(Rollout(problem=problem, response=response)))
