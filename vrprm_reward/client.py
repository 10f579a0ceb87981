"""`RemoteProcessReward`: a process reward that asks a `vrprm-reward serve`.

What can go wrong and what then happens:

- a response holds half a surrogate pair: that rollout is `unscored_response`, as in process;
- an image cannot be read here: that rollout is `unscored_ours`, with the reason of its error;
- no connection, a cut one, half a body, 408, 429 or 5xx: tried again with growing, random pauses
  (or as Retry-After says) until `total_timeout`; then the rollouts of that request are
  `unscored_ours`: `server_unreachable`, `server_timeout`, `server_overloaded` or `server_failed`;
- a 422 that names rollouts (an image over the server's limits, say): these are `unscored_ours`
  with the server's code, and the rest is sent again;
- a 413: the request is halved; a single rollout that is too large is `unscored_ours`;
- an answer that is no answer to what was asked: `unscored_ours`, `server_answer`;
- any other 4xx (a wrong token, address or version) and redirects are mistakes in the settings
  that would fail every rollout: `ServerRefusedError`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from types import AsyncGeneratorType
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2

from vrprm_reward.background import BackgroundLoop
from vrprm_reward.client_answers import unscored
from vrprm_reward.client_call import TOKEN_VARIABLE, Call, ClientSettings, ServerRefusedError
from vrprm_reward.connections import bearer_token, proxies_of_the_environment
from vrprm_reward.errors import InputError
from vrprm_reward.images import DEFAULT_SETTINGS, ImageSettings
from vrprm_reward.types import ProcessScore, Rollout, checked_rollouts

__all__ = ["TOKEN_VARIABLE", "RemoteProcessReward", "ServerRefusedError"]

_CONNECT_SECONDS = 10.0


class RemoteProcessReward:
    """Scores rollouts by a `vrprm-reward serve`. Pickles; connections are made when needed.

    Args:
        url: such as `http://reward:8000`; https and a path before `/v1` are fine.
        token: bearer token; None: the environment variable VRPRM_TOKEN, if it is set. Blanks and
            line breaks around it are taken off; an empty one is none.
        timeout: seconds for one attempt, waiting in the server's queue included. More than the
            server's own limit (300), so that the server is the one that says it is late.
        total_timeout: seconds for one request with all its attempts.
        max_concurrency: most requests in flight from one event loop.
        chunk: most rollouts in one request.
        max_body_bytes: bodies are kept below this many bytes where that is possible.
        images: what may be read here, and from where. The server never sees paths or URLs.
        thinking: whether to ask for what the reward model wrote before it judged.

    Raises:
        InputError: the URL, the token or a limit cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 330.0,
        total_timeout: float = 900.0,
        max_concurrency: int = 64,
        chunk: int = 16,
        max_body_bytes: int = 32 * 2**20,
        images: ImageSettings = DEFAULT_SETTINGS,
        thinking: bool = False,
    ) -> None:
        for name, value in [("timeout", timeout), ("total_timeout", total_timeout)]:
            if not 0 < value < float("inf"):
                raise InputError(f"{name} = {value} is not a positive number of seconds")
        for name, value in [("max_concurrency", max_concurrency), ("chunk", chunk)]:
            if value < 1:
                raise InputError(f"{name} = {value} is less than 1")
        self._settings = ClientSettings(
            url=_checked_url(url),
            token=_checked_token(token),
            timeout=timeout,
            total_timeout=total_timeout,
            max_concurrency=max_concurrency,
            chunk=chunk,
            max_body_bytes=max_body_bytes,
            images=images,
            thinking=thinking,
        )
        self._begin()

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts. Works inside a running event loop too.

        Raises:
            InputError: something in `rollouts` is no `Rollout`.
            ServerRefusedError: the server refuses whatever is asked. Everything else that fails
                comes back as unscored rollouts, within a bounded time.
            InputError: the environment names a proxy that cannot be used.
            EngineClosedError: `close` was called meanwhile.
        """
        self._begin_if_forked()
        return self._loop.run(self.ascore(rollouts))

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """As `score`, for coroutines."""
        rollouts = checked_rollouts(rollouts)
        self._begin_if_forked()
        pool = await self._pool()
        call = Call(self._settings, pool.client, pool.places)
        found: list[ProcessScore | None] = [None] * len(rollouts)
        tasks = [
            asyncio.create_task(call.score_into(found, rollouts, range(start, stop)))
            for start, stop in _chunks(len(rollouts), self._settings.chunk)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [score or unscored("server_answer", "no score was found") for score in found]

    def close(self) -> None:
        """Close the connections that `score` has made, and end calls of it under way.

        Those of `ascore` close with their loop.
        """
        self._begin_if_forked()
        self._loop.close(self.aclose())

    async def aclose(self) -> None:
        """Close the connections that `ascore` has made in the running event loop."""
        pool = self._pools.pop(id(asyncio.get_running_loop()), None)
        if pool is not None:
            await pool.keeper.aclose()
            _KEEPERS.discard(pool.keeper)

    def __repr__(self) -> str:
        return f"RemoteProcessReward({self._settings.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._loop = BackgroundLoop()
        self._pools: dict[int, _Pool] = {}

    def _begin_if_forked(self) -> None:
        # After a fork the loop's thread is missing and the connections are the parent's.
        if self._process != os.getpid():
            self._begin()

    async def _pool(self) -> "_Pool":
        """The connections of the running event loop."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(id(loop))
        if pool is None or pool.loop is not loop:
            for key in [key for key, each in self._pools.items() if each.loop.is_closed()]:
                _KEEPERS.discard(self._pools.pop(key).keeper)
            client = _client(self._settings)
            places = asyncio.Semaphore(self._settings.max_concurrency)
            pool = self._pools[id(loop)] = _Pool(
                loop, cast("AsyncGeneratorType[None, None]", _closing(client)), client, places
            )
            for keeper in list(_KEEPERS):
                if keeper.ag_frame is None:
                    _KEEPERS.discard(keeper)
            _KEEPERS.add(pool.keeper)
            await anext(pool.keeper)
        return pool


@dataclass
class _Pool:
    loop: asyncio.AbstractEventLoop
    keeper: AsyncGeneratorType[None, None]
    client: httpx2.AsyncClient
    places: asyncio.Semaphore


def _client(settings: ClientSettings) -> httpx2.AsyncClient:
    headers = {"Content-Type": "application/json"}
    if settings.token is not None:
        headers["Authorization"] = f"Bearer {settings.token}"
    with proxies_of_the_environment():
        return httpx2.AsyncClient(
            base_url=settings.url,
            headers=headers,
            timeout=httpx2.Timeout(settings.timeout, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(
                max_connections=settings.max_concurrency,
                max_keepalive_connections=settings.max_concurrency,
                keepalive_expiry=30,
            ),
        )


# A generator that nobody holds is finished in a task, which asyncio.run cancels when it ends.
_KEEPERS: set[AsyncGeneratorType[None, None]] = set()


async def _closing(client: httpx2.AsyncClient) -> AsyncGenerator[None, None]:
    # Event loops finish their asynchronous generators before they close (asyncio.run does), and
    # connections have to be closed by then.
    try:
        yield
    finally:
        await client.aclose()


def _chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _checked_token(token: str | None) -> str | None:
    if token is None:
        return bearer_token(os.environ.get(TOKEN_VARIABLE), f"the variable {TOKEN_VARIABLE}")
    return bearer_token(token, "token")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(f"{url!r} is not the URL of a server: write http://host:port")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError("a server's URL has no user, '?' or '#' in it: pass the token as token=")
    return url.rstrip("/")
