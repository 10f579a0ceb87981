"""Whose doing it is when a prompt does not fit the model's context."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from vrprm_reward.errors import ProblemTooLongError, PromptTooLongError
from vrprm_reward.scoring.render import Case

SHORTEST_STEP = "-"


@contextlib.asynccontextmanager
async def told_apart(
    case: Case, ask: Callable[[Case], Awaitable[int]], *, reserve: int = 0
) -> AsyncIterator[None]:
    """Let a `PromptTooLongError` pass only where a short response would have fitted.

    A policy has no part in a question or an image that fills the context by itself. Which of the
    two it is cannot be told from the length of one prompt, so the same is asked once more with the
    shortest response there is.

    Args:
        case: what was to be shown.
        ask: asks the engine for a case in the same way, as cheaply as may be, and returns the
            length of the prompt in tokens.
        reserve: tokens by which that prompt might have been longer, such as thinking that the end
            of the context cut off.

    Raises:
        ProblemTooLongError: that does not fit either.
        PromptTooLongError: it fits, so the response is too long.
    """
    try:
        yield
    except PromptTooLongError as error:
        try:
            tokens = reserve + await ask(replace(case, steps=(SHORTEST_STEP,)))
        except PromptTooLongError as alone:
            raise ProblemTooLongError(tokens=alone.tokens, limit=alone.limit) from error
        if tokens > error.limit:
            raise ProblemTooLongError(tokens=tokens, limit=error.limit) from error
        raise
