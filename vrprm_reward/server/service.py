"""A scored request from its head to its answer, for both scoring routes."""

import asyncio
import contextlib
import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from vrprm_reward.engines.openai.errors import (
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.server.admission import (
    Admission,
    DrainingError,
    FullError,
    GoneError,
    LateError,
    Place,
)
from vrprm_reward.server.drafts import Draft, draft_items, score_drafts, unscored
from vrprm_reward.server.metrics import Metrics
from vrprm_reward.server.openrlhf import draft_queries, reward_answer
from vrprm_reward.server.readiness import Readiness
from vrprm_reward.server.schema import (
    Refusal,
    RewardRequest,
    RewardResponse,
    ScoreRequest,
    ScoreResponse,
    refusal_of,
    score_item,
)
from vrprm_reward.server.security import announced_size, read_body, until_gone
from vrprm_reward.server.settings import ServerSettings
from vrprm_reward.types import ProcessScore

_log = logging.getLogger(__name__)

T = TypeVar("T")
Parsed = TypeVar("Parsed", bound=BaseModel)

_NOT_YET = (ServerUnreachableError, ServerTimeoutError, ServerFailedError)
_BETWEEN_TRIES = 1.0
"""Seconds between two rounds of attempts to reach model servers."""

_PARSERS, _READERS = 16, 16
"""Threads that parse requests, and threads that read images: apart, because images may come from a
slow disk or host; and apart from those of the reward model."""

_LAST_SECONDS = 5.0
"""For reading and parsing a request to `/get_reward` whose time is over."""


class Service:
    """What the routes share. Made anew for each app; used from one event loop.

    Args:
        reward: what scores. Its `ascore` is called concurrently, once per request.
        settings: limits.
    """

    def __init__(self, reward: ProcessReward, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.admission = Admission(settings, self.metrics)
        self.readiness = Readiness(reward, fresh_seconds=settings.ready_seconds)
        self.loading = False
        """Whether a thread is loading the model, which may hold what closing the model needs."""

        self._reward = reward
        self._parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="vrprm-parse")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="vrprm-read")

    async def load(self) -> None:
        """Load the model now, if it is one that loads on first use.

        Model servers that do not answer yet are waited for.

        Raises:
            VRPRMError: it cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[None] = loop.create_future()

        def tell(error: Exception | None) -> None:
            if not loaded.done():
                loaded.set_result(None) if error is None else loaded.set_exception(error)

        def load() -> None:
            failure = None
            try:
                _load(self._reward, self.settings.upstream_seconds)
            except Exception as error:  # noqa: BLE001  whatever a model may raise
                failure = error
            self.loading = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(tell, failure)

        self.loading = True
        # A daemon, so that a server that is told to end while it loads can end.
        threading.Thread(target=load, name="vrprm-load", daemon=True).start()
        await loaded
        self.readiness.loaded.set()

    async def close(self) -> None:
        """Finish what was let in, then free the threads."""
        await self.admission.drain(self.settings.drain_seconds)
        await self.readiness.close()
        for threads in (self._parsers, self._readers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def score(self, request: Request) -> ScoreResponse:
        """`POST /v1/score`.

        Raises:
            Refusal: 4xx for what is wrong with the request; 503 when the queue is full or the
                server goes down; 504 when it took too long.
        """
        limits = self.settings
        deadline = request.scope["vrprm_arrived"] + limits.score_seconds
        size = announced_size(request, limits.max_body_bytes)
        try:
            async with self.admission.place("score", size) as place:
                body = await self._body(request)
                asked, drafts = await self._in_thread(lambda: self._parse_score(body), deadline)
                scores = await self._scores(request, place, body, drafts, deadline)
        except FullError:
            raise self._unavailable("queue_full", "the queue is full: try again soon") from None
        except DrainingError:
            raise self._unavailable("draining", "this server is going down") from None
        except LateError:
            raise Refusal(
                504,
                "late",
                f"not scored within {limits.score_seconds:g} s: send it again to join what is in "
                "work",
            ) from None
        return ScoreResponse(
            scores=[
                score_item(score, item.id, thinking=asked.thinking)
                for item, score in zip(asked.rollouts, scores, strict=True)
            ]
        )

    async def get_reward(self, request: Request) -> RewardResponse:
        """`POST /get_reward`. Waits where `score` refuses, and answers in time in any case.

        Raises:
            Refusal: 4xx for what is wrong with the request; 503 when the server goes down, or has
                no time to look at the request.
        """
        limits = self.settings
        if limits.unscored_reward is None:
            raise Refusal(
                404,
                "get_reward_off",
                "this route is off: start the server with --unscored-reward, the reward of a "
                "rollout that could not be scored",
            )
        deadline = request.scope["vrprm_arrived"] + limits.reward_seconds
        size = announced_size(request, limits.max_body_bytes)
        try:
            async with self.admission.place("get_reward", size, deadline=deadline) as place:
                drafts, body = await self._reward_drafts(request, deadline)
                try:
                    scores = await self._scores(request, place, body, drafts, deadline)
                except (LateError, DrainingError):
                    scores = self._too_late(len(drafts))
        except FullError:
            drafts, _ = await self._reward_drafts(request, deadline)
            scores = self._too_late(len(drafts))
        except DrainingError:
            raise self._unavailable("draining", "this server is going down") from None
        return reward_answer(scores, limits.unscored_reward)

    async def _reward_drafts(self, request: Request, deadline: float) -> tuple[list[Draft], bytes]:
        """Drafts, and the body that they came from. They are needed for any answer."""
        latest = max(deadline, time.monotonic() + _LAST_SECONDS)
        body = await self._body(request, at_most=latest - time.monotonic())
        try:
            return await self._in_thread(lambda: self._parse_reward(body), latest), body
        except LateError:
            raise self._unavailable("late", "there was no time to look at the request") from None

    async def _scores(
        self,
        request: Request,
        place: Place,
        body: bytes,
        drafts: Sequence[Draft],
        deadline: float,
    ) -> Sequence[ProcessScore]:
        self.metrics.batch.observe(len(drafts))
        if not drafts:
            return []
        named = place.route.encode() + b"\0"
        key = await self._in_thread(lambda: hashlib.sha256(named + body).digest(), deadline)
        job = self.admission.job(key, len(drafts), lambda: self._work(drafts), place)
        try:
            scores = await job.result(deadline=deadline, gone=lambda: until_gone(request))
        except GoneError:
            raise Refusal(400, "cut_off", "the connection ended before the answer") from None
        if not job.counted:
            job.counted = True
            self.metrics.count_outcomes(scores)
        return scores

    async def _work(self, drafts: Sequence[Draft]) -> list[ProcessScore]:
        await self.readiness.loaded.wait()
        with self.metrics.scoring_seconds.time():
            scores = await score_drafts(
                self._reward,
                drafts,
                self.settings.images,
                threads=self._readers,
                count_images=self.metrics.images.inc,
            )
        self.metrics.count_work(scores)
        for score in scores:
            self.readiness.saw(score)
        return scores

    def _parse_score(self, body: bytes) -> tuple[ScoreRequest, list[Draft]]:
        asked = _parsed(ScoreRequest, body)
        self._check_batch(len(asked.rollouts))
        return asked, draft_items(asked.rollouts, self.settings.images)

    def _parse_reward(self, body: bytes) -> list[Draft]:
        asked = _parsed(RewardRequest, body)
        self._check_batch(len(asked.query))
        return draft_queries(asked, self.settings.images)

    def _check_batch(self, rollouts: int) -> None:
        limit = self.settings.max_batch
        if rollouts > limit:
            raise Refusal(
                413, "batch_size", f"{rollouts} rollouts where {limit} are allowed: send fewer"
            )

    def _too_late(self, rollouts: int) -> list[ProcessScore]:
        scores = [unscored("server_timeout", "not scored in time")] * rollouts
        self.metrics.count_outcomes(scores)
        return scores

    def _unavailable(self, code: str, message: str) -> Refusal:
        return Refusal(503, code, message, retry_after=self.settings.retry_after_seconds)

    async def _body(self, request: Request, *, at_most: float = math.inf) -> bytes:
        limits = self.settings
        seconds = min(limits.body_seconds, at_most)
        return await read_body(request, limit=limits.max_body_bytes, seconds=seconds)

    async def _in_thread(self, function: Callable[[], T], deadline: float) -> T:
        """Raises `LateError` when it is not done by the deadline."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.get_running_loop().run_in_executor(self._parsers, function)
        except TimeoutError:
            raise LateError from None


def _load(reward: ProcessReward, seconds: float) -> None:
    """Make the engine, if there is one; again and again while its servers do not answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            getattr(reward, "engine", None)
        except _NOT_YET as error:
            if time.monotonic() > end:
                raise
            _log.warning("the model servers do not answer yet: %s", error)
            time.sleep(_BETWEEN_TRIES)
        else:
            return


def _parsed(model: type[Parsed], body: bytes) -> Parsed:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise refusal_of(error) from None
