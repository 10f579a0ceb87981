"""One call of a `RemoteProcessReward`: rollouts -> requests, attempts, and scores."""

import asyncio
import itertools
import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from vrprm_reward.client_answers import (
    message_of,
    reason_of,
    refused_items,
    retry_after,
    scores_of,
    unscored,
)
from vrprm_reward.connections import through_proxy
from vrprm_reward.errors import (
    ImageError,
    ImageLimitError,
    InputError,
    ResponseError,
    VRPRMError,
)
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.encoded import encoded_image, image_key
from vrprm_reward.types import ProcessScore, Rollout, check_is_text

_log = logging.getLogger(__name__)

TOKEN_VARIABLE = "VRPRM_TOKEN"
"""Environment variable that holds the token, for the client and the server."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
_LONGEST_RETRY_AFTER = 60.0
_KEPT_IMAGES = 256


class ServerRefusedError(InputError):
    """The server refuses whatever is asked: a wrong token, address, version or setting."""

    code = "server_refused"


@dataclass(frozen=True)
class ClientSettings:
    """The arguments of `RemoteProcessReward`."""

    url: str
    token: str | None = field(repr=False)
    timeout: float
    total_timeout: float
    max_concurrency: int
    chunk: int
    max_body_bytes: int
    images: ImageSettings
    thinking: bool


class _GivenUpError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Call:
    """One call of `ascore`.

    When the server has answered nothing at all for as long as one request may take, the requests
    that have not begun are not begun: a dead server costs `total_timeout` once, not per request.
    """

    def __init__(
        self, settings: ClientSettings, client: httpx2.AsyncClient, places: asyncio.Semaphore
    ) -> None:
        self._settings = settings
        self._client = client
        self._places = places
        self._answered = float("-inf")
        self._given_up: _GivenUpError | None = None
        self._urls: dict[object, asyncio.Task[str]] = {}

    async def score_into(
        self, found: list[ProcessScore | None], rollouts: Sequence[Rollout], indices: range
    ) -> None:
        """Score the rollouts at `indices`, come what may."""
        async with self._places:
            items: dict[int, dict[str, Any]] = {}
            for index in indices:
                try:
                    check_is_text(rollouts[index].response)
                    items[index] = await self._item(rollouts[index])
                except ResponseError as error:
                    found[index] = ProcessScore(
                        status="unscored_response", reason=error.reason, detail=str(error)
                    )
                except ImageError as error:
                    found[index] = unscored(error.code, str(error))
                except Exception as error:  # noqa: BLE001  one rollout must not lose the others
                    _log.exception("a rollout could not be sent")
                    found[index] = unscored("unexpected", f"{type(error).__name__}: {error}")
            for part in _parts(items, self._settings.max_body_bytes):
                await self._send_into(found, rollouts, part)

    async def _item(self, rollout: Rollout) -> dict[str, Any]:
        problem = rollout.problem
        limit = self._settings.images.max_images
        if len(problem.images) > limit:
            raise ImageLimitError(
                f"{len(problem.images)} images are more than max_images = {limit}: leave some out, "
                "or raise it here and on the server"
            )
        item: dict[str, Any] = {
            "question": problem.question,
            "images": [await self._data_url(image) for image in problem.images],
            "response": rollout.response,
        }
        if rollout.steps is not None:
            item["steps"] = [{"start": step.start, "end": step.end} for step in rollout.steps]
        if problem.reference_answer is not None:
            item["reference_answer"] = problem.reference_answer
        return item

    async def _data_url(self, image: Any) -> str:
        """The image, read once in a call however many rollouts share it."""
        key = image_key(image)
        task = self._urls.get(key)
        if task is None:
            while len(self._urls) >= _KEPT_IMAGES:
                del self._urls[next(iter(self._urls))]
            task = self._urls[key] = asyncio.create_task(
                asyncio.to_thread(lambda: encoded_image(image, self._settings.images).data_url())
            )
            # Seen, also when the call is cancelled before anyone asks for it.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _send_into(
        self,
        found: list[ProcessScore | None],
        rollouts: Sequence[Rollout],
        items: dict[int, dict[str, Any]],
    ) -> None:
        """Send items until each has a score or a reason; every repetition is a smaller request."""
        if not items:
            return
        try:
            answer = await self._request(items)
        except _GivenUpError as error:
            found_all = unscored(error.reason, str(error))
            for index in items:
                found[index] = found_all
            return
        if answer.status_code == 413:
            if len(items) == 1:
                for index in items:
                    found[index] = unscored("request_too_large", message_of(answer))
                return
            order = list(items)
            for half in (order[: len(order) // 2], order[len(order) // 2 :]):
                await self._send_into(found, rollouts, {i: items[i] for i in half})
            return
        if answer.status_code == 422:
            refused = refused_items(answer, list(items))
            if not refused:
                raise self._refused(answer)
            for index, score in refused.items():
                found[index] = score
            rest = {index: item for index, item in items.items() if index not in refused}
            await self._send_into(found, rollouts, rest)
            return
        if answer.status_code != 200:
            raise self._refused(answer)
        scores = scores_of(answer, [rollouts[index] for index in items])
        for index, score in zip(items, scores, strict=True):
            found[index] = score

    async def _request(self, items: dict[int, dict[str, Any]]) -> httpx2.Response:
        """The answer to a request, after as many attempts as time allows.

        The same bytes each time, so that the server joins a retry to what is in work.
        """
        settings = self._settings
        if self._given_up is not None:
            raise self._given_up
        asked = {"rollouts": list(items.values()), "thinking": settings.thinking}
        # Half a surrogate pair in a question is no text that JSON can carry.
        body = json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace")
        started = time.monotonic()
        deadline = started + settings.total_timeout
        problem: _GivenUpError | None = None
        for attempt in itertools.count():
            wanted = 0.0
            limit = min(settings.timeout, deadline - time.monotonic())
            answer = await self._attempt(body, limit)
            if isinstance(answer, _GivenUpError):
                # An attempt that had no time left says nothing about the server.
                if problem is None or limit == settings.timeout:
                    problem = answer
            else:
                self._answered = time.monotonic()
                if answer.status_code not in (408, 429) and answer.status_code < 500:
                    return answer
                wanted = retry_after(answer)
                problem = _GivenUpError(reason_of(answer.status_code), message_of(answer))
            pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
            pause += min(wanted, _LONGEST_RETRY_AFTER)
            if time.monotonic() + pause >= deadline:
                if self._answered < started:
                    self._given_up = problem
                raise problem
            await asyncio.sleep(pause)
        raise AssertionError("itertools.count does not end")

    async def _attempt(self, body: bytes, seconds: float) -> httpx2.Response | _GivenUpError:
        url = self._settings.url
        try:
            async with asyncio.timeout(seconds):
                return await self._client.post("/v1/score", content=body)
        except httpx2.LocalProtocolError:
            # Its text shows the header that cannot be sent.
            raise ServerRefusedError(
                f"no valid request to {url} can be made: check token and URL"
            ) from None
        except (httpx2.ConnectTimeout, httpx2.NetworkError, httpx2.ProtocolError) as error:
            way = through_proxy(url)
            what = f"{url} cannot be reached{way} ({type(error).__name__}: {error})"
            return _GivenUpError("server_unreachable", what)
        except (TimeoutError, httpx2.TimeoutException):
            return _GivenUpError("server_timeout", f"{url} did not answer within {seconds:.1f} s")
        except (httpx2.HTTPError, OSError) as error:
            what = f"{url}{through_proxy(url)}: {type(error).__name__}: {error}"
            return _GivenUpError("server_unreachable", what)

    def _refused(self, answer: httpx2.Response) -> VRPRMError:
        hints = {
            401: f"pass token=, or set {TOKEN_VARIABLE}",
            403: "check the token and what stands between here and the server",
            404: "check that the URL is that of a `vrprm-reward serve`, without /v1/score",
        }
        hint = hints.get(answer.status_code, "client and server may be of different versions")
        return ServerRefusedError(
            f"{self._settings.url} answered {answer.status_code} ({message_of(answer)}): {hint}"
        )


def _parts(items: dict[int, dict[str, Any]], limit: int) -> Iterator[dict[int, dict[str, Any]]]:
    """The items in their order, in parts whose bodies stay below `limit` bytes where they can."""
    part: dict[int, dict[str, Any]] = {}
    size = 0
    for index, item in items.items():
        # Four bytes are the longest that a character takes; images are ASCII.
        own = sum(map(len, item["images"])) + 4 * (len(item["question"]) + len(item["response"]))
        if part and size + own > limit:
            yield part
            part, size = {}, 0
        part[index] = item
        size += own
    if part:
        yield part
