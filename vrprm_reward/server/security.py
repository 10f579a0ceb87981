"""The outermost layer: tokens, bodies under a limit, an access log without secrets, no leaks.

Everything here works on the head of a request; nothing is parsed before it has passed.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic import SecretStr
from starlette.requests import Request

from vrprm_reward.server.metrics import Metrics
from vrprm_reward.server.schema import Refusal, printable

_log = logging.getLogger(__name__)
_access = logging.getLogger("vrprm_reward.server.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_ROUTE = "/health"
TOKEN_IN_URL_ROUTE = "/get_reward"


class _LostError(Exception):
    pass


class Guard:
    """Wraps an app: lets in who has a token, logs and counts every answer, hides every crash.

    Args:
        app: what is wrapped.
        tokens: any of them opens every route; none: all are open.
        metrics: where answers are counted.
        routes: paths that may stand in metrics; others count as `other`.
    """

    def __init__(
        self, app: App, *, tokens: Iterable[SecretStr], metrics: Metrics, routes: frozenset[str]
    ) -> None:
        self._app = app
        self._digests = [_digest(token.get_secret_value().encode()) for token in tokens]
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Kept from everything further in, logs of any kind included.
        query = bytes(scope["query_string"])
        scope["query_string"] = b""
        arrived = scope["vrprm_arrived"] = time.monotonic()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"cache-control", b"no-store"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            try:
                await send(message)
            except Exception as error:
                raise _LostError from error

        try:
            if self._lets_in(scope, query):
                await self._app(scope, receive, watched)
            else:
                await _answer(watched, _unauthorized())
        except _LostError as error:
            # uvicorn has answered a malformed body by itself, or the connection is gone.
            _log.debug("an answer found no connection: %r", error.__cause__)
        except Exception:  # noqa: BLE001  no crash may show outside
            _log.exception("a request failed unexpectedly")
            if not status:
                await _answer(watched, Refusal(500, "internal", "see the server's log"))
        finally:
            self._record(scope, status, time.monotonic() - arrived)

    def _lets_in(self, scope: Scope, query: bytes) -> bool:
        if not self._digests or scope["path"] == OPEN_ROUTE:
            return True
        given = _token(scope["headers"])
        if given is None and scope["path"] == TOKEN_IN_URL_ROUTE:
            given = _token_in_query(query)
        if given is None:
            return False
        digest = _digest(given)
        # All of them, also after a match: the time must not tell which one it was.
        return sum([hmac.compare_digest(digest, known) for known in self._digests]) > 0

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.request_seconds.labels(path).observe(seconds)
        _access.log(
            logging.DEBUG if path in ("/health", "/ready", "/metrics") else logging.INFO,
            "%s %s %d %.3f s",
            printable(scope["method"]),
            printable(scope["path"]),
            status,
            seconds,
        )


def _digest(token: bytes) -> bytes:
    # Of equal length whatever is given, so that the comparison does not tell the token's length.
    return hashlib.sha256(token).digest()


def _token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].partition(b" ")
    return token.strip(b" ") if scheme.lower() == b"bearer" else None


def _token_in_query(query: bytes) -> bytes | None:
    try:
        pairs = parse_qsl(query.decode("ascii"), max_num_fields=10)
    except ValueError:
        return None
    found = [value for name, value in pairs if name == "token"]
    if len(found) != 1:
        return None
    # As in a form, a plus was read as a space, and no token has one.
    return found[0].replace(" ", "+").encode("utf-8", "replace")


def _unauthorized() -> Refusal:
    refusal = Refusal(401, "token", "a valid token is needed: Authorization: Bearer ...")
    refusal.headers["WWW-Authenticate"] = "Bearer"
    return refusal


async def _answer(send: Send, refusal: Refusal) -> None:
    body = json.dumps(refusal.body.model_dump()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(k.lower().encode(), v.encode()) for k, v in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def announced_size(request: Request, limit: int) -> int:
    """How many bytes the body of a request will have at most; judged by its head.

    Raises:
        Refusal: 413 for more than `limit` bytes; 415 unless it is said to be JSON, which keeps
            web pages from posting here without being asked first.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, "media_type", "send Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "content_encoding", "send the body without Content-Encoding")
    length = request.headers.get("content-length")
    if length is None:
        return limit
    # Checked to be digits by the HTTP parser; other servers may not.
    if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > limit:
        raise _too_large(limit)
    return int(length)


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The body of a request.

    Raises:
        Refusal: 413 when it has more than `limit` bytes, 408 when it takes longer than `seconds`,
            400 when the connection ends before it does.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "cut_off", "the connection ended before the body did")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(408, "body_late", f"the body took longer than {seconds:g} s") from None


async def until_gone(request: Request) -> None:
    """Return when the client has closed its connection. To be used after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(limit: int) -> Refusal:
    message = f"the body is larger than {limit:,} bytes: send fewer rollouts"
    return Refusal(413, "body_size", message)
