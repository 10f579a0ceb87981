"""Judgements that a rollout asks for in the same moment, joined to one request."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field

from vrprm_reward.engines.engine import Judgement, Prompt
from vrprm_reward.engines.openai.wire import Route

Answer = Callable[[Hashable, Sequence[Prompt], Route], Awaitable[Sequence[Judgement]]]


@dataclass
class _Group:
    prompts: list[Prompt] = field(default_factory=list)
    task: asyncio.Task[Sequence[Judgement]] = field(init=False)
    waiting: int = 0


class Together:
    """Joins calls of one share that are made before the event loop gets to anything else.

    The scorer asks for all steps of a round at once, so a round is one request and nothing waits
    for it.

    Args:
        answer: the judgements of some prompts of one share and route, in order.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open: dict[Hashable, _Group] = {}

    async def judge(self, prompt: Prompt, share: Hashable, route: Route) -> Judgement:
        """The judgement of `prompt`. What fails fails for all that were joined; the request is
        called off when none of them waits any more."""
        key = (id(asyncio.get_running_loop()), share, route, prompt.form)
        group = self._open.get(key)
        if group is None or group.task.done():  # done: called off before it began
            group = self._open[key] = _Group()
            group.task = asyncio.create_task(self._ask(key, share, route, group))
        index = len(group.prompts)
        group.prompts.append(prompt)
        group.waiting += 1
        try:
            return (await asyncio.shield(group.task))[index]
        except asyncio.CancelledError:
            group.waiting -= 1
            if not group.waiting:
                group.task.cancel()
            raise

    async def _ask(
        self, key: Hashable, share: Hashable, route: Route, group: _Group
    ) -> Sequence[Judgement]:
        try:
            # It goes on after what the loop had ready before it: the other calls of a round.
            await asyncio.sleep(0)
        finally:
            del self._open[key]
        return await self._answer(share, group.prompts, route)
