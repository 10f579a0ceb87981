"""Whose doing it is when a prompt does not fit the model's context."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from vrprm_reward.engines.engine import Generation
from vrprm_reward.errors import ProblemTooLongError, PromptTooLongError
from vrprm_reward.scoring.render import Case

SHORTEST_STEP = "-"


def raise_if_cut_by_context(generation: Generation, max_tokens: int) -> None:
    """Refuse thinking that the context cut off before `max_tokens`.

    Else a response would choose by its length how much the judge may think about it.

    Raises:
        PromptTooLongError: the prompt left less room.
    """
    if generation.finish == "context":
        context = generation.prompt_tokens + generation.generated_tokens
        raise PromptTooLongError(
            tokens=generation.prompt_tokens,
            limit=max(0, context - max_tokens),
            thinking=max_tokens,
        )


@contextlib.asynccontextmanager
async def told_apart(case: Case, ask: Callable[[Case], Awaitable[int]]) -> AsyncIterator[None]:
    """Let a `PromptTooLongError` pass only where a short response would have fitted.

    A policy has no part in a question or an image that fills the context by itself. Which of the
    two it is cannot be told from the length of one prompt, so the same is asked once more with the
    shortest response there is.

    Args:
        case: what was to be shown.
        ask: asks the engine for a case in the same way, as cheaply as may be, and returns the
            length of the prompt in tokens.

    Raises:
        ProblemTooLongError: that does not fit either.
        PromptTooLongError: it fits, so the response is too long.
    """
    try:
        yield
    except PromptTooLongError as error:
        try:
            tokens = await ask(replace(case, steps=(SHORTEST_STEP,)))
        except PromptTooLongError as alone:
            raise ProblemTooLongError(tokens=alone.tokens, limit=alone.limit) from error
        if tokens > error.limit:
            raise ProblemTooLongError(tokens=tokens, limit=error.limit) from error
        raise
