"""One HTTP request to a server: what counts as an answer, and what as a failure that may pass."""

import email.utils
import time
from typing import Any

import httpx2

from vrprm_reward.connections import through_proxy
from vrprm_reward.engines.openai.errors import (
    ServerAnswerError,
    ServerError,
    ServerFailedError,
    ServerRefusedError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from vrprm_reward.engines.openai.wire import Json

_LONGEST_WAIT = 60.0
"""Seconds for which a server is left alone at most, whatever it asks for."""


class PassingFailure(Exception):  # noqa: N818  not an error until attempts run out
    """An attempt that failed in a way that another attempt may not.

    Args:
        what: what happened, for a person.
        kind: `connection`, `timeout`, `status` or `answer`.
        status: of the response, where there was one and it could not be used.
        wait: seconds that the server asked to be left alone, at most 60, if it did.
    """

    def __init__(
        self, what: str, *, kind: str, status: int | None = None, wait: float | None = None
    ) -> None:
        super().__init__(what)
        self.kind = kind
        self.status = status
        self.wait = wait

    def final(self, tries: int) -> ServerError:
        """The error when there is no further attempt."""
        error, remedy = _FINAL[self.kind]
        return error(f"{self}; given up after {tries} attempts: {remedy}")


_FINAL: dict[str, tuple[type[ServerError], str]] = {
    "connection": (
        ServerUnreachableError,
        "check that the server runs and that its URL is right, or raise max_attempts",
    ),
    "timeout": (ServerTimeoutError, "raise attempt_timeout, or lower max_in_flight"),
    "status": (ServerFailedError, "look into the server's log"),
    "answer": (ServerAnswerError, "look into the server's log, and at any proxy before it"),
}


async def call(
    client: httpx2.AsyncClient, server: str, method: str, url: str, body: Json | None = None
) -> Json:
    """One HTTP request; its answer, a JSON object. `server` is its name, for messages.

    Raises:
        PassingFailure: connection errors, 408, 429, 5xx, or a body that is not JSON (it may
            have been cut off).
        ServerRefusedError: any other status but success.
        ServerError: the settings make no valid request.
        ServerAnswerError: JSON that is no object.
    """
    try:
        response = await client.request(method, url, json=body)
    except httpx2.LocalProtocolError:
        # Its text shows the header that cannot be sent.
        raise ServerError(
            f"no valid request to {server} can be made: check the API key and the URL"
        ) from None
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        words = str(error) or type(error).__name__
        raise PassingFailure(
            f"the connection to {server}{through_proxy(url)} failed ({words})", kind="connection"
        ) from error
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise PassingFailure(
            f"{server} answered HTTP {status} ({_words(response)})",
            kind="status",
            status=status,
            wait=_retry_after(response.headers.get("retry-after")),
        )
    if not response.is_success:
        hint = _HINTS.get(status, "change the request or the server's settings")
        raise ServerRefusedError(
            f"{server} refused a request with HTTP {status} ({_words(response)}): {hint}",
            status=status,
            words=_words(response, 2000),
        )
    try:
        answer = response.json()
    except ValueError as error:
        raise PassingFailure(
            f"{server} answered something that is not JSON ({_words(response)})",
            kind="answer",
            status=status,
        ) from error
    if not isinstance(answer, dict):
        raise ServerAnswerError(f"{server} answered JSON that is no object: check the URL")
    return answer


_HINTS = {
    401: "pass the server's API key",
    403: "pass an API key that may use this model",
    404: "check the URL and the model's name",
}


def _words(response: httpx2.Response, most: int = 300) -> str:
    """The server's own words, on one line."""
    try:
        answer: Any = response.json()
    except ValueError:
        answer = response.text
    for key in ("error", "message", "detail"):
        if isinstance(answer, dict) and key in answer:
            answer = answer[key]
    return " ".join(str(answer).split())[:most]


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date, up to a limit."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, seconds), _LONGEST_WAIT) if seconds < float("inf") else None
