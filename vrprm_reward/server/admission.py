"""Who comes in, who waits, who goes next, and how everyone gets out before the lights go off.

A request first gets a *place* (its body is read only then), then its rollouts get a *turn* with
the reward model, first come first served. Requests with the same content share one job. A job
belongs to no connection: it goes on when its client is cut off, so that a retry can join it. The
bytes of the body are the job's until it ends. One that nobody waits for is dropped at its turn, or
before it, when no retry has come for a while.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from vrprm_reward.server.metrics import Metrics
from vrprm_reward.server.settings import ServerSettings
from vrprm_reward.types import ProcessScore

_log = logging.getLogger(__name__)

Route = Literal["score", "get_reward"]
Work = Callable[[], Awaitable[list[ProcessScore]]]

_GRACE = 30.0
"""Seconds for which a job that waits for its turn is kept although nobody waits for it. Clients
pause for less between two attempts."""


_Ticket = tuple[asyncio.Future[None], int]
"""Set when the turn has come, and the number of rollouts."""


class FullError(Exception):
    """There is no place, now or within the time given."""


class DrainingError(Exception):
    """The server is going down and lets nobody in."""


class LateError(Exception):
    """The time of a request is over."""


class GoneError(Exception):
    """The client of a request has closed its connection."""


@dataclass
class Place:
    """What one request takes up inside."""

    route: Route
    size: int
    """Bytes of its body; 0 once they are a job's."""


@dataclass
class Job:
    """Rollouts on their way to scores, and how many requests wait for them."""

    size: int
    """Bytes of the body that it came from."""

    drop: Callable[["Job"], None]
    """Called when it was left alone for too long."""

    task: asyncio.Task[list[ProcessScore]] = field(init=False)
    waiters: int = 0
    begun: bool = False
    """Whether its turn has come."""

    counted: bool = False
    """Whether its rollouts are in the metrics: once, however many requests it answers."""

    alone: asyncio.TimerHandle | None = None
    """Runs while nobody waits."""

    async def result(
        self, *, deadline: float, gone: Callable[[], Awaitable[None]]
    ) -> list[ProcessScore]:
        """The scores, when they are there.

        Args:
            deadline: on the clock of `time.monotonic`.
            gone: returns when the client has closed its connection.

        Raises:
            LateError: the deadline has passed. The job goes on.
            GoneError: the client is gone. The job goes on.
            DrainingError: the job was given up because the server goes down.
        """
        self.waiters += 1
        self.end_grace()
        watch = asyncio.ensure_future(gone())
        try:
            await asyncio.wait(
                {self.task, watch},
                timeout=max(0.0, deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self.task.cancelled():
                raise DrainingError
            if self.task.done():
                return self.task.result()
            raise GoneError if watch.done() else LateError
        finally:
            self.waiters -= 1
            watch.cancel()
            if not self.waiters and not self.task.done():
                loop = asyncio.get_running_loop()
                self.alone = loop.call_later(_GRACE, self.drop, self)

    def end_grace(self) -> None:
        """Somebody waits again, or the job has ended."""
        if self.alone is not None:
            self.alone.cancel()
            self.alone = None


class Admission:
    """The places and turns of one server. Used from its event loop only."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.draining = False
        self._settings = settings
        self._metrics = metrics
        self._capacity: dict[Route, int] = {
            "score": settings.queue,
            "get_reward": settings.reward_queue,
        }
        self._held: Counter[Route] = Counter()
        self._held_bytes = 0
        self._lobby: deque[tuple[asyncio.Future[None], Route, int]] = deque()
        self._jobs: dict[bytes, Job] = {}
        self._turns: deque[_Ticket] = deque()
        self._running = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextlib.asynccontextmanager
    async def place(
        self, route: Route, size: int, *, deadline: float | None = None
    ) -> AsyncIterator[Place]:
        """A place inside, for the block.

        Args:
            route: whose queue it is.
            size: bytes that the body will hold at most.
            deadline: until when to wait for a place, on the clock of `time.monotonic`; None:
                not at all.

        Raises:
            FullError: there is none.
            DrainingError: nobody is let in any more.
        """
        if self.draining:
            raise DrainingError
        if self._has_room(route, size) and not (deadline is not None and self._lobby):
            self._enter(route, size)
        elif deadline is None:
            raise FullError
        else:
            await self._wait_in_lobby(route, size, deadline)
        place = Place(route, size)
        try:
            yield place
        finally:
            self._leave(route, place.size)

    def job(self, key: bytes, weight: int, work: Work, place: Place) -> Job:
        """The job with this content, begun now unless it is in work already.

        Args:
            key: equal for equal content.
            weight: number of rollouts.
            work: computes the scores; called at the job's turn.
            place: of the request; a new job takes over its bytes.
        """
        if (job := self._jobs.get(key)) is not None:
            self._metrics.joined.inc()
            return job
        job = self._jobs[key] = Job(place.size, partial(self._drop, key))
        place.size = 0
        job.task = asyncio.create_task(self._run(key, job, weight, work))
        return job

    def start_draining(self) -> None:
        """Let nobody in any more; whoever waits outside is sent away."""
        self.draining = True
        while self._lobby:
            ticket, _, _ = self._lobby.popleft()
            if not ticket.done():
                ticket.set_exception(DrainingError())

    async def drain(self, seconds: float) -> bool:
        """Wait until everyone inside has an answer, at most `seconds`; then give the rest up.

        Returns:
            Whether everyone was served in time.
        """
        self.start_draining()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        lost = self._held.total()
        jobs = [job.task for job in self._jobs.values()]
        for task in jobs:
            task.cancel()
        await asyncio.wait(jobs, timeout=5) if jobs else None
        if lost:
            _log.error("going down with %d requests unfinished after %g s", lost, seconds)
        return not lost

    def _has_room(self, route: Route, size: int) -> bool:
        fits = self._held_bytes == 0 or self._held_bytes + size <= self._settings.max_held_bytes
        return self._held[route] < self._capacity[route] and fits

    def _enter(self, route: Route, size: int) -> None:
        self._held[route] += 1
        self._held_bytes += size
        self._empty.clear()
        self._show()

    def _leave(self, route: Route, size: int) -> None:
        self._held[route] -= 1
        self._release(size)
        if not self._held.total():
            self._empty.set()
        self._show()

    def _release(self, size: int) -> None:
        self._held_bytes -= size
        while self._lobby:
            ticket, waiting_route, waiting_size = self._lobby[0]
            if not ticket.done():
                if not self._has_room(waiting_route, waiting_size):
                    break
                self._enter(waiting_route, waiting_size)
                ticket.set_result(None)
            self._lobby.popleft()
        self._show()

    async def _wait_in_lobby(self, route: Route, size: int, deadline: float) -> None:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (ticket, route, size)
        self._lobby.append(entry)
        self._show()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await ticket
        except BaseException as error:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                self._leave(route, size)
            ticket.cancel()
            if entry in self._lobby:
                self._lobby.remove(entry)
                self._show()
            if isinstance(error, TimeoutError):
                raise FullError from None
            raise

    async def _run(self, key: bytes, job: Job, weight: int, work: Work) -> list[ProcessScore]:
        try:
            started = time.monotonic()
            self._metrics.waiting.inc(weight)
            try:
                await self._turn(weight)
            finally:
                self._metrics.waiting.dec(weight)
            try:
                job.begun = True
                self._metrics.queue_seconds.observe(time.monotonic() - started)
                if not job.waiters:
                    self._metrics.abandoned.inc()
                    return []
                return await work()
            finally:
                self._end_turn(weight)
        finally:
            job.end_grace()
            self._release(job.size)
            if self._jobs.get(key) is job:
                del self._jobs[key]

    def _drop(self, key: bytes, job: Job) -> None:
        """Give up a job that nobody has waited for during the time of grace."""
        if not job.begun and not job.task.done():
            # At once, so that an equal request begins a new one instead of joining the end of this.
            del self._jobs[key]
            self._metrics.abandoned.inc()
            job.task.cancel()

    async def _turn(self, weight: int) -> None:
        if not self._turns and self._may_run(weight):
            self._begin(weight)
            return
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (ticket, weight)
        self._turns.append(entry)
        try:
            await ticket
        except BaseException:
            if ticket.done() and not ticket.cancelled():
                self._end_turn(weight)
            else:
                self._turns.remove(entry)
                self._hand_out_turns()
            raise

    def _may_run(self, weight: int) -> bool:
        return self._running == 0 or self._running + weight <= self._settings.max_running

    def _begin(self, weight: int) -> None:
        self._running += weight
        self._metrics.running.set(self._running)

    def _end_turn(self, weight: int) -> None:
        self._running -= weight
        self._metrics.running.set(self._running)
        self._hand_out_turns()

    def _hand_out_turns(self) -> None:
        while self._turns:
            ticket, waiting = self._turns[0]
            if not ticket.done():
                if not self._may_run(waiting):
                    break
                self._begin(waiting)
                ticket.set_result(None)
            self._turns.popleft()

    def _show(self) -> None:
        for route in self._capacity:
            self._metrics.held.labels(route).set(self._held[route])
        self._metrics.held_bytes.set(self._held_bytes)
        self._metrics.lobby.set(len(self._lobby))
