"""Scores without a model, by a rule that a test knows: for the doubles of every part."""

from collections.abc import Callable
from typing import Any

from vrprm_reward.steps import StepSettings, split_steps
from vrprm_reward.types import ProcessScore, Rollout


def judged(
    rollout: Rollout,
    p_of_step: Callable[[str], float],
    *,
    settings: StepSettings = StepSettings(),  # noqa: B008  frozen
    **more: Any,
) -> ProcessScore:
    """Every step scored by its text; a response without steps is unscored by its own fault."""
    steps = rollout.steps or split_steps(rollout.response, settings)
    if not steps:
        return ProcessScore(
            status="unscored_response", reason="response_empty", detail="There are no steps."
        )
    p_correct = tuple(p_of_step(step.text) for step in steps)
    return ProcessScore(status="scored", steps=steps, p_correct=p_correct, **more)
