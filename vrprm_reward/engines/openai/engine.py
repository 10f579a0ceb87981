"""The engine that asks OpenAI-compatible servers (vLLM, SGLang) over HTTP."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from vrprm_reward.background import BackgroundLoop
from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.engines.openai import probe, wire
from vrprm_reward.engines.openai.errors import ServerError, ServerRefusedError, ServersDisagreeError
from vrprm_reward.engines.openai.http import PassingFailure
from vrprm_reward.engines.openai.options import DEFAULT_OPENAI_OPTIONS, OpenAIOptions
from vrprm_reward.engines.openai.probe import Ask
from vrprm_reward.engines.openai.servers import Fleet, Server
from vrprm_reward.engines.openai.together import Together
from vrprm_reward.engines.openai.urls import parse_urls
from vrprm_reward.engines.openai.wire import Json, Render, Route
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
        self._process = os.getpid()
        self._model = None if self._options.model == "auto" else self._options.model
        self._joining: bool | None = None
        self._finding: dict[asyncio.AbstractEventLoop, asyncio.Task[bool]] = {}
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
        return f"{self._model or 'auto'} @ {names}"

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
        route = wire.route_of(prompt)
        await _encode_images(prompt)

        async def work(server: Server) -> Generation:
            model = await self._ready(server)
            most = max_tokens if server.context is None else min(max_tokens, server.context - 1)
            answer = await self._fitting(server, model, prompt, route, max(1, most), stop)
            return wire.read_generation(
                answer, route, stop=stop, thinking=self._thinking, server=server.name
            )

        return await self._ask(share, work)

    async def judge(self, prompt: Prompt, *, share: Hashable) -> Judgement:
        """Log-probabilities of the two verdicts after `prompt`.

        Judgements of one share that are asked for at once are one request, where the server can
        take several prompts and none has an image.

        Raises:
            PromptTooLongError: the prompt leaves no room in the model's context.
            ConstraintIgnoredError: the server answers something else than 1 or 0.
            LogprobsMissingError: it does not give both log-probabilities.
            ServerError: see its subclasses.
        """
        wire.route_of(prompt)
        if not prompt.images and await self._joins(share):
            return await self._together.judge(prompt, share)
        await _encode_images(prompt)

        async def work(server: Server) -> Judgement:
            return await self._judged(server, await self._ready(server), prompt)

        return await self._ask(share, work)

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
            if self._fleet is not None and self._process == os.getpid():
                self._loop.run(_wind_up(self._fleet))
            self._loop.close()

    async def _joins(self, share: Hashable) -> bool:
        """Whether judgements asked for at once are one request; found out with the first."""
        if not self._options.check_template:
            return False  # the server's template may say something else than the text made here

        async def find(server: Server) -> bool:
            return bool(await self._several(server, await self._ready(server)))

        if self._joining is None:
            # One task for all that ask: they go on in the same moment, and their round stays one.
            loop = asyncio.get_running_loop()
            finding = self._finding.get(loop)
            if finding is None:
                finding = self._finding[loop] = loop.create_task(self._ask(share, find))
                finding.add_done_callback(lambda _: self._finding.pop(loop, None))
            self._joining = await asyncio.shield(finding)
        return self._joining

    async def _judge_several(
        self, share: Hashable, prompts: Sequence[Prompt]
    ) -> Sequence[Judgement]:
        texts = [wire.rendered(prompt, self._render) for prompt in prompts]

        async def work(server: Server) -> Sequence[Judgement]:
            model = await self._ready(server)
            way = await self._several(server, model)
            if not way:  # unlike the server that was asked first
                return [await self._judged(server, model, prompt) for prompt in prompts]
            body = wire.texts_body(texts, model=model) | wire.choice_fields("completions", way)
            try:
                answer = await self._asker(server)("POST", wire.PATHS["completions"], body)
            except ServerRefusedError as refusal:
                raise wire.too_long(refusal, server.context) or refusal from refusal
            return wire.read_judgements(answer, len(texts), server.name)

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

    async def _ask(self, share: Hashable, work: Callable[[Server], Awaitable[T]]) -> T:
        async def on_some_server() -> T:
            return await self._servers().on_some_server(share, work)

        return await asyncio.wrap_future(self._submit(on_some_server()))

    async def _until_closed(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._closed:
                raise EngineClosedError("the engine was closed before the answer came") from None
            raise

    def _servers(self) -> Fleet:
        if self._fleet is None:
            self._fleet = Fleet(self._urls, self._options)
        return self._fleet

    async def _connect(self) -> None:
        fleet = self._servers()
        checks = await asyncio.gather(
            *(self._check(server) for server in fleet.servers), return_exceptions=True
        )
        failures = [failure for failure in checks if isinstance(failure, BaseException)]
        for failure in failures:
            if not isinstance(failure, PassingFailure | TimeoutError):
                raise failure
        if len(failures) == len(fleet.servers):
            # Once more with all attempts and pauses, which ends in a clear error.
            await fleet.on_some_server(None, self._ready)

    async def _check(self, server: Server) -> None:
        async with asyncio.timeout(self._options.attempt_timeout):
            model = await self._ready(server)
            await self._way(server, model, "chat")
            if self._options.check_template:
                await self._several(server, model)

    def _asker(self, server: Server) -> Ask:
        fleet = self._servers()

        async def ask(method: str, path: str, body: Json | None = None) -> Json:
            base = server.url
            if path.startswith("../"):
                base, path = base.removesuffix("/v1"), path.removeprefix("..")
            return await fleet.call(server, method, base + path, body)

        return ask

    async def _ready(self, server: Server) -> str:
        """The served model's id, of a server whose model and template are right."""
        async with server.checking:
            server.raise_if_unusable()
            if server.model is None:
                server.raise_if_resting()
                ask = self._asker(server)
                try:
                    model, context = await probe.find_model(
                        ask, server.name, self._model or self._options.model
                    )
                    if self._options.check_template:
                        await probe.check_template(
                            ask, server.name, model, self._render, self._thinking
                        )
                except ServerError as error:
                    server.refuse(error)
                    raise
                if self._model not in (None, model):
                    raise ServersDisagreeError(
                        f"{server.name} serves {model!r} and another server {self._model!r}: all "
                        "must serve the same model"
                    )
                self._model = server.model = model
                server.context = context
            return server.model

    async def _way(self, server: Server, model: str, route: Route) -> wire.Way:
        """How verdicts are asked for; found out once."""
        async with server.checking:
            server.raise_if_unusable()
            if route not in server.ways:
                try:
                    server.ways[route] = await probe.find_way(
                        self._asker(server), server.name, model, route
                    )
                except ServerError as error:
                    server.refuse(error)
                    raise
            return server.ways[route]

    async def _several(self, server: Server, model: str) -> wire.Way | Literal[False]:
        """How several prompts are judged in one request, if at all; found out once."""
        async with server.checking:
            if server.several is None:
                found = await probe.takes_several(self._asker(server), server.name, model)
                server.several = found or False
            return server.several

    async def _judged(self, server: Server, model: str, prompt: Prompt) -> Judgement:
        """One judgement in a request of its own."""
        route = wire.route_of(prompt)
        fields = wire.choice_fields(route, await self._way(server, model, route))
        try:
            answer = await self._post(server, model, prompt, route, fields)
        except ServerRefusedError as refusal:
            raise wire.too_long(refusal, server.context) or refusal from refusal
        return wire.read_judgement(answer, route, server.name)

    async def _naming(self, server: Server, model: str) -> bool:
        """Whether images may be named; found out once."""
        if not self._options.image_references:
            return False
        async with server.checking:
            if server.names_images is None:
                server.names_images = await probe.can_name_images(
                    self._asker(server), server.name, model
                )
            return server.names_images

    async def _post(
        self, server: Server, model: str, prompt: Prompt, route: Route, fields: Json
    ) -> Json:
        """One request. Images that the server has are named, unless it has lost them."""
        ask, path = self._asker(server), wire.PATHS[route]
        digests = [image.digest for image in prompt.images]
        naming = bool(digests) and await self._naming(server, model)
        named = {digest for digest in digests if digest in server.images} if naming else set()
        body = wire.prompt_body(prompt, model=model, named=named, naming=naming) | fields
        try:
            answer = await ask("POST", path, body)
        except (ServerRefusedError, PassingFailure) as failure:
            for digest in named:
                server.images.pop(digest, None)
            if not named or isinstance(failure, PassingFailure):
                raise
            answer = await ask(
                "POST", path, wire.prompt_body(prompt, model=model, naming=naming) | fields
            )
        if naming:
            server.saw(digests)
        return answer

    async def _fitting(
        self,
        server: Server,
        model: str,
        prompt: Prompt,
        route: Route,
        max_tokens: int,
        stop: str | None,
    ) -> Json:
        """As many tokens as fit into the context behind the prompt, at most `max_tokens`."""

        async def generate(most: int) -> Json:
            fields = wire.generation_fields(most, stop)
            return await self._post(server, model, prompt, route, fields)

        try:
            return await generate(max_tokens)
        except ServerRefusedError as refusal:
            long = wire.too_long(refusal, server.context)
            if long is None or max_tokens == 1:
                raise long or refusal from refusal
        # Servers say in many ways, or not at all, how long a prompt is that leaves too little
        # room. Asked for one token, they count it.
        try:
            single = await generate(1)
            room = long.limit + 1 - wire.prompt_tokens(single, server.name)
            return single if room <= 1 else await generate(min(room, max_tokens - 1))
        except ServerRefusedError as refusal:
            raise wire.too_long(refusal, server.context) or refusal from refusal


async def _encode_images(prompt: Prompt) -> None:
    """Make the PNG files in a thread; they are kept."""
    for image in prompt.images:
        await asyncio.to_thread(image.png)


async def _wind_up(fleet: Fleet) -> None:
    """Cancel what is under way and close the connections."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await fleet.close()
