"""The engine that asks OpenAI-compatible servers (vLLM, SGLang) over HTTP."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from vrprm_reward.background import BackgroundLoop
from vrprm_reward.concurrently import all_or_first_error
from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.engines.openai import wire
from vrprm_reward.engines.openai.dialogue import Dialogue
from vrprm_reward.engines.openai.errors import ServerFailedError
from vrprm_reward.engines.openai.http import PassingFailure
from vrprm_reward.engines.openai.options import DEFAULT_OPENAI_OPTIONS, OpenAIOptions
from vrprm_reward.engines.openai.servers import Fleet, Server
from vrprm_reward.engines.openai.together import Together
from vrprm_reward.engines.openai.urls import parse_urls
from vrprm_reward.engines.openai.wire import Render, Route
from vrprm_reward.errors import EngineClosedError

T = TypeVar("T")


@dataclass(frozen=True)
class ServerStats:
    """What one server was asked so far."""

    server: str
    requests: int
    """HTTP requests sent, probes and repeated ones included."""

    failures: dict[str, int]
    """Failed attempts by kind: `connection`, `timeout`, `status`, `answer`."""

    in_flight: int
    most_in_flight: int


class OpenAIEngine:
    """Servers of one model, behind the `Engine` interface.

    Connections live in an event loop of this object's own, made when first used and once per
    process, so all methods may be called from any thread and loop, and the object pickles.

    Args:
        urls: base URLs, such as `["http://127.0.0.1:8000/v1"]`. `/v1` is added to one without path.
        render: the profile's conversation template: `partial(render_template, source)`.
        thinking: opening and closing delimiter of the profile's thinking.
        options: times, limits, model, key.

    Raises:
        InputError: something in `urls` is no base URL.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        render: Render,
        thinking: tuple[str, str] = ("<think>", "</think>"),
        options: OpenAIOptions = DEFAULT_OPENAI_OPTIONS,
    ) -> None:
        self._urls = parse_urls(urls)
        self._render = render
        self._thinking = thinking
        self._options = options
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop = BackgroundLoop()
        self._fleet: Fleet | None = None
        self._dialogue: Dialogue | None = None
        self._process = os.getpid()
        self._together = Together(self._judge_several)
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        return {k: self.__dict__[k] for k in ("_urls", "_render", "_thinking", "_options")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def identity(self) -> str:
        """Model id and servers; `auto` for the model until a server was asked."""
        names = ",".join(Server(url).name for url in self._urls)
        model = self._options.model if self._dialogue is None else self._dialogue.model
        return f"{model or 'auto'} @ {names}"

    @property
    def added_tokens(self) -> frozenset[str]:
        """Reserved strings, by the options: the tokenizer is at the servers."""
        return self._options.added_tokens

    @property
    def deterministic(self) -> bool:
        """False: what shares a batch at a server depends on timing."""
        return False

    @property
    def stats(self) -> tuple[ServerStats, ...]:
        """Counts of each server, in the order of the URLs."""
        fleet = self._fleet
        servers = [Server(url) for url in self._urls] if fleet is None else fleet.servers
        return tuple(
            ServerStats(s.name, s.requests, dict(s.failures), s.in_flight, s.most_in_flight)
            for s in servers
        )

    def fixed_point_pays(self, *, rollouts: int, steps: int) -> bool:  # noqa: ARG002
        """True: a round trip costs more than the tokens of a judgement asked for twice."""
        return True

    def connect(self) -> None:
        """Check every server now instead of when it is first needed.

        Servers that cannot be reached are left for later as long as one can.

        Raises:
            ServerError: no server can be reached, or one must not be used (its template, its
                constraint, its model).
            InputError: the environment names a proxy that cannot be used.
        """
        checks = self._submit(self._connect())
        try:
            checks.result()
        except BaseException:
            checks.cancel()
            raise

    async def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: str | None, share: Hashable
    ) -> Generation:
        """Continue greedily; fewer than `max_tokens` where the context ends before.

        Raises:
            PromptTooLongError: the prompt leaves no room in the model's context.
            ServerError: see its subclasses.
        """
        wire.route_of(prompt)  # raises before anything is sent
        await _encode_images(prompt)

        async def work(dialogue: Dialogue, server: Server) -> Generation:
            return await dialogue.generated(server, prompt, max_tokens, stop)

        return await self._ask(share, work)

    async def judge(self, prompt: Prompt, *, share: Hashable) -> Judgement:
        """Log-probabilities of the two verdicts after `prompt`.

        Judgements of one share that are asked for at once are one request, where the server can
        take several prompts.

        Raises:
            PromptTooLongError: the prompt leaves no room in the model's context.
            ConstraintIgnoredError: the server answers something else than 1 or 0.
            LogprobsMissingError: it does not give both log-probabilities.
            ServerError: see its subclasses.
        """
        route = self._route_together(prompt)
        if route is None:
            return await self._judge_alone(share, prompt)
        return await self._together.judge(prompt, share, route)

    def expect(self, share: Hashable) -> None:
        """Nothing: servers batch what comes."""

    def release(self, share: Hashable) -> None:
        """Nothing: servers keep and drop prefixes as they see fit."""

    def close(self) -> None:
        """Close all connections; unfinished calls fail with `EngineClosedError`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.close(None if self._fleet is None else self._fleet.close())

    def _route_together(self, prompt: Prompt) -> Route | None:
        """The route of a judgement that may be joined with others; None for one that cannot be.

        A prompt without images goes as text made here, which costs least, unless the template
        of the servers was not compared and may say something else.
        """
        route = wire.route_of(prompt)  # raises before anything is sent
        if self._options.check_template and not prompt.images:
            return "completions"
        return "chat" if route == "chat" else None

    async def _judge_several(
        self, share: Hashable, prompts: Sequence[Prompt], route: Route
    ) -> Sequence[Judgement]:
        async def work(dialogue: Dialogue, server: Server) -> Sequence[Judgement] | None:
            return await dialogue.judged_together(server, prompts, route)

        if (len(prompts) > 1 or route == "completions") and not self._none_takes_several(route):
            await _encode_images(*prompts)
            try:
                if (found := await self._ask(share, work)) is not None:
                    return found
            except ServerFailedError:
                # A proxy may have no patience for the answer to all, or a server not the room.
                if len(prompts) == 1:
                    raise
        return await all_or_first_error(self._judge_alone(share, prompt) for prompt in prompts)

    def _none_takes_several(self, route: Route) -> bool:
        fleet = self._fleet
        return fleet is not None and all(s.several.get(route) is False for s in fleet.servers)

    async def _judge_alone(self, share: Hashable, prompt: Prompt) -> Judgement:
        async def work(dialogue: Dialogue, server: Server) -> Judgement:
            return await dialogue.judged(server, prompt)

        await _encode_images(prompt)
        return await self._ask(share, work)

    # What follows runs in the engine's own event loop, but for `_submit` and `_ask`.

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        if self._process != os.getpid():
            self._reset()  # a fork has neither the thread nor the right to the connections
        with self._lock:
            if self._closed:
                coroutine.close()
                raise EngineClosedError("the engine is closed: make a new one")
            return self._loop.submit(self._until_closed(coroutine))

    async def _ask(self, share: Hashable, work: Callable[[Dialogue, Server], Awaitable[T]]) -> T:
        async def on_some_server() -> T:
            fleet, dialogue = self._servers()
            return await fleet.on_some_server(share, partial(work, dialogue))

        return await asyncio.wrap_future(self._submit(on_some_server()))

    async def _until_closed(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._closed:
                raise EngineClosedError("the engine was closed before the answer came") from None
            raise

    def _servers(self) -> tuple[Fleet, Dialogue]:
        if self._fleet is None or self._dialogue is None:
            self._fleet = Fleet(self._urls, self._options)
            self._dialogue = Dialogue(self._fleet, self._render, self._thinking, self._options)
        return self._fleet, self._dialogue

    async def _connect(self) -> None:
        fleet, dialogue = self._servers()

        async def check(server: Server) -> None:
            async with asyncio.timeout(self._options.attempt_timeout):
                await dialogue.check(server)

        checks = await asyncio.gather(*map(check, fleet.servers), return_exceptions=True)
        failures = [failure for failure in checks if isinstance(failure, BaseException)]
        for failure in failures:
            if not isinstance(failure, PassingFailure | TimeoutError):
                raise failure
        if len(failures) == len(fleet.servers):
            # Once more with all attempts and pauses, which ends in a clear error.
            await fleet.on_some_server(None, dialogue.ready)


async def _encode_images(*prompts: Prompt) -> None:
    """Make the PNG files in a thread; they are kept."""
    images = {image.digest: image for prompt in prompts for image in prompt.images}
    for image in images.values():
        await asyncio.to_thread(image.png)
