"""Which server gets a request, how many it gets at one time, and what happens when it fails.

All of it runs in one event loop, so nothing here needs a lock.
"""

import asyncio
import logging
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import httpx2

from vrprm_reward.connections import proxies_of_the_environment
from vrprm_reward.engines.openai import http
from vrprm_reward.engines.openai.errors import (
    ServerError,
    ServerTimeoutError,
)
from vrprm_reward.engines.openai.http import PassingFailure
from vrprm_reward.engines.openai.options import OpenAIOptions
from vrprm_reward.engines.openai.wire import Json, Route, Way

T = TypeVar("T")

_log = logging.getLogger(__name__)

_KEEP_ALIVE = 2.0
"""Seconds that an unused connection is kept; servers close theirs after 5."""

_IMAGES_REMEMBERED = 4096
_SILENCE = 10.0
"""Seconds without any answer after which a server may be another process than before: no model is
restarted in less, and an unused connection does not show it."""

_RECHECK = 30.0
"""Seconds after which a server that was found unusable is checked again."""


@dataclass
class Server:
    """One base URL and what is known about it."""

    url: str
    """Base URL, such as `http://host:8000/v1`."""

    in_flight: int = 0
    most_in_flight: int = 0
    requests: int = 0
    """HTTP requests sent, probes included."""

    failures: Counter[str] = field(default_factory=Counter)
    """Failed attempts by kind: `connection`, `timeout`, `status`, `answer`."""

    answered: float = 0.0
    """Loop time of its last successful answer."""

    lost: int = 0
    """Failed connections in a row."""

    resting_until: float = 0.0
    """Loop time before which it gets nothing."""

    model: str | None = None
    """The served model's id, once the server was found usable."""

    context: int | None = None
    """The model's context in tokens, if the server tells."""

    ways: dict[Route, Way] = field(default_factory=dict)
    several: dict[Route, Way | Literal[False]] = field(default_factory=dict)
    """How several prompts are judged in one request; False: not at all; none: not tried yet."""

    names_images: bool | None = None
    """Whether it can be told the name of an image instead of the image; None: not tried yet."""

    images: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Digests of images that it has under their names, most recently used last."""

    unusable: ServerError | None = None
    """Why it must not be used."""

    unusable_until: float = 0.0
    """Loop time at which that is looked into again."""

    told: bool = False
    """Whether it was said that it is passed over for `unusable`."""

    was_usable: bool = False
    """Whether it was found usable before. Then one that is not any more, restarted with other
    options say, is passed over while others are usable; a mistake at the start is an error."""

    checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        """The URL without anything secret in it."""
        parts = urlsplit(self.url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def refuse(self, reason: ServerError) -> None:
        """Note that it must not be used; after some time it is checked again."""
        self.unusable, self.told = reason, False
        self.unusable_until = asyncio.get_running_loop().time() + _RECHECK

    def found_usable(self, model: str, context: int | None) -> None:
        """Note what it serves, and that it may be used."""
        self.model, self.context, self.was_usable = model, context, True

    def raise_if_unusable(self) -> None:
        """Raise why it must not be used, if so."""
        if self.unusable is not None and self._barred:
            raise self.unusable.with_traceback(None)
        self.unusable = None

    @property
    def passed_over(self) -> bool:
        """Whether it was usable once and must not be used now."""
        return self.was_usable and self._barred

    @property
    def _barred(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self.unusable is not None and now < self.unusable_until

    def raise_if_resting(self) -> None:
        """Raise when it was lost a moment ago, while the caller waited for its turn to try."""
        if self.lost and asyncio.get_running_loop().time() < self.resting_until:
            raise PassingFailure(f"the connection to {self.name} failed", kind="connection")

    def saw(self, digests: Sequence[str]) -> None:
        """Remember that the server has these images."""
        for digest in digests:
            self.images[digest] = None
            self.images.move_to_end(digest)
        while len(self.images) > _IMAGES_REMEMBERED:
            self.images.popitem(last=False)

    def forget_after_silence(self) -> None:
        """Take nothing for granted where a restart may have gone unnoticed."""
        if asyncio.get_running_loop().time() - self.answered > _SILENCE:
            self.forget()

    def forget(self) -> None:
        """Take nothing for granted: whatever answers here next may be another process."""
        self.model = self.context = self.names_images = None
        self.ways.clear()
        self.several.clear()
        self.images.clear()


@dataclass
class _Waiter:
    share: Hashable
    avoid: Server | None
    turn: "asyncio.Future[Server]"


class Fleet:
    """Some servers of the same model. Made and used inside one event loop.

    Args:
        urls: base URLs, as `urls.parse_urls` returns them.
        options: times and limits.

    Raises:
        InputError: the environment names a proxy that cannot be used.
    """

    def __init__(self, urls: Sequence[str], options: OpenAIOptions) -> None:
        self.servers = tuple(Server(url) for url in urls)
        self._options = options
        self._waiters: deque[_Waiter] = deque()
        self._last_failure: PassingFailure | None = None
        self._last_answer = 0.0
        key = options.api_key
        with proxies_of_the_environment():
            self._client = httpx2.AsyncClient(
                headers={} if key is None else {"Authorization": f"Bearer {key}"},
                timeout=httpx2.Timeout(None, connect=options.connect_timeout),
                limits=httpx2.Limits(keepalive_expiry=_KEEP_ALIVE),
            )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def on_some_server(self, share: Hashable, work: Callable[[Server], Awaitable[T]]) -> T:
        """Do `work` on the least loaded server; on a failure that may pass, again and elsewhere.

        Raises:
            ServerUnreachableError: no connection after all attempts.
            ServerTimeoutError: no answer in time.
            ServerFailedError, ServerAnswerError: the last of all attempts ended so.
            EngineError: whatever else `work` raises, at once.
        """
        options, clock = self._options, asyncio.get_running_loop().time
        submitted, deadline = clock(), None
        failure: PassingFailure | None = None
        avoid: Server | None = None
        tries = 0
        while True:
            server = await self._take(share, avoid, submitted, deadline, failure)
            started = clock()
            deadline = deadline or started + options.total_timeout
            allowed = min(options.attempt_timeout, deadline - started)
            try:
                async with asyncio.timeout(allowed):
                    result = await work(server)
            except TimeoutError:
                what = f"{server.name} did not answer within {allowed:g} s"
                failure = PassingFailure(what, kind="timeout")
            except PassingFailure as passing:
                failure = passing
            except ServerError as error:
                if not server.passed_over or all(s.passed_over for s in self.servers):
                    raise
                if not server.told:  # calls that were on their way there hear of it too
                    server.told = True
                    _log.warning("passed over for %g s: %s", _RECHECK, error)
                continue
            else:
                self._last_answer = clock()
                return result
            finally:
                self._give_back(server)
            tries += 1
            avoid = server
            self._note(server, failure)
            if tries >= options.max_attempts:
                raise failure.final(tries) from failure
            if failure.kind in ("status", "answer"):
                pause = min(self._pause(tries), max(0.0, deadline - clock()))
                await asyncio.sleep(pause)
            if clock() >= deadline:
                raise ServerTimeoutError(
                    f"{failure}; no time is left after {tries} attempts: raise total_timeout "
                    f"({options.total_timeout:g} s)"
                ) from failure

    async def call(self, server: Server, method: str, url: str, body: Json | None = None) -> Json:
        """One HTTP request, counted; see `http.call`."""
        server.requests += 1
        alive = True
        try:
            answer = await http.call(self._client, server.name, method, url, body)
            server.answered = asyncio.get_running_loop().time()
            return answer
        except PassingFailure as failure:
            alive = failure.kind != "connection"
            raise
        finally:
            if alive and server.lost:
                server.lost = 0
                self._hand_out()

    async def _take(
        self,
        share: Hashable,
        avoid: Server | None,
        submitted: float,
        deadline: float | None,
        failure: PassingFailure | None,
    ) -> Server:
        """Wait for a turn at a server; first come, first served.

        A call that had no turn yet waits on as long as others are answered; later turns count
        against its own time.
        """
        loop = asyncio.get_running_loop()
        total = self._options.total_timeout
        waiter = _Waiter(share, avoid, loop.create_future())
        self._waiters.append(waiter)
        try:
            self._hand_out()
            while not waiter.turn.done():
                end = deadline or max(submitted, self._last_answer) + total
                left = end - loop.time()
                first_awake = min(server.resting_until for server in self._considered())
                if left <= 0 or (failure is not None and first_awake > end):
                    reason = failure or self._last_failure or "all servers are busy"
                    raise ServerTimeoutError(
                        f"no server was free within {total:g} s ({reason}): raise total_timeout, "
                        "or add servers"
                    )
                await asyncio.wait([waiter.turn], timeout=left)
            return waiter.turn.result()
        except BaseException:
            if waiter.turn.done() and not waiter.turn.exception():
                self._give_back(waiter.turn.result())
            waiter.turn.cancel()
            raise

    def _hand_out(self) -> None:
        """Give servers to those who wait, as far as there is room."""
        while self._waiters:
            waiter = self._waiters[0]
            if waiter.turn.done():
                self._waiters.popleft()
                continue
            server = self._least_loaded(waiter)
            if server is not None:
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
                waiter.turn.set_result(server)
            elif (lost := self._all_lost()) is not None:
                waiter.turn.set_exception(lost)
            else:
                return

    def _least_loaded(self, waiter: _Waiter) -> Server | None:
        now = asyncio.get_running_loop().time()
        # A server whose connections failed gets one request until one succeeds.
        room = [
            server
            for server in self._considered()
            if server.resting_until <= now
            and server.in_flight < (1 if server.lost else self._options.max_in_flight)
        ]
        others = [server for server in room if server is not waiter.avoid]
        # Equal load: the same server for the same rollout, whose prefix it has cached.
        return min(
            others or room, key=lambda s: (s.in_flight, hash((waiter.share, s.url))), default=None
        )

    def _considered(self) -> Sequence[Server]:
        """Servers but those passed over; all where that leaves none, to hear why."""
        return [s for s in self.servers if not s.passed_over] or self.servers

    def _all_lost(self) -> ServerError | None:
        now = asyncio.get_running_loop().time()
        lost = self._options.max_attempts
        if all(s.lost >= lost and s.resting_until > now for s in self._considered()):
            failure = self._last_failure
            assert failure is not None
            return failure.final(lost)
        return None

    def _give_back(self, server: Server) -> None:
        server.in_flight -= 1
        self._hand_out()

    def _note(self, server: Server, failure: PassingFailure) -> None:
        """Count a failure, and let the server rest where that is called for."""
        loop = asyncio.get_running_loop()
        server.failures[failure.kind] += 1
        self._last_failure = failure
        if failure.kind == "connection":
            if server.resting_until > loop.time():
                return  # requests that were on their way when it was noticed
            server.lost += 1
            server.forget()
            server.resting_until = loop.time() + self._pause(server.lost)
        elif failure.wait is not None:
            server.resting_until = max(server.resting_until, loop.time() + failure.wait)
        else:
            return
        loop.call_at(server.resting_until + 0.001, self._hand_out)
        self._hand_out()

    def _pause(self, tries: int) -> float:
        """Seconds before attempt `tries + 1`."""
        options = self._options
        longest = min(options.first_pause * 2.0 ** min(tries - 1, 30), options.longest_pause)
        return longest * random.uniform(0.5, 1.0)
