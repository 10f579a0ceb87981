"""Several awaitables at once, as one thing that is answered or fails."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def all_or_first_error(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All answers in order. Once one fails, the others are called off and take no more time.

    Unlike `asyncio.TaskGroup`, it raises what failed and no group of it. Raises what is raised
    first.
    """
    tasks = [asyncio.ensure_future(awaitable) for awaitable in asked]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
