"""A process reward that scores nothing twice, whatever happens in between."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from vrprm_reward.errors import EngineError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.keys import rollout_key
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.types import ProcessScore, Rollout

_Flight = Future[ProcessScore]

MOST_TIMEOUTS = 16
"""So many rollouts in a row without an answer in time are the server's doing, not their own."""

_UNREACHABLE, _TIMEOUT = "server_unreachable", "server_timeout"


class KeptReward:
    """Answers from a journal what it holds, and asks a process reward for the rest.

    A score is found again by what was scored (question, contents of images, response, steps) and
    who was asked, never by its place in a file. A rollout that was unscored by our own fault
    keeps that status for the rest of the job and is tried again when the job is started again.
    May be used by several threads and coroutines; what one of them is asking for, the others
    wait for.

    A server that is gone ends the job, instead of leaving all that follows unscored: nothing of
    a call is kept when none of its rollouts was answered and the server could not be reached, or
    let `MOST_TIMEOUTS` in a row time out. A lone timeout may be the rollout's own doing, and would
    end the job again each time that it goes on.

    Args:
        reward: who is asked.
        journal: where scores are kept.
        images: where relative image paths start.
        asker: names the model, the profile and all else that decides a score.
    """

    def __init__(
        self, reward: ProcessReward, journal: Journal, images: ImageSettings, asker: str
    ) -> None:
        self._reward = reward
        self._journal = journal
        self._images = images
        self._asker = asker
        self._lock = threading.Lock()
        self._in_flight: dict[bytes, _Flight] = {}
        self._calls = 0
        self._timeouts = 0
        self._since = 0.0
        self.computed = 0
        """Rollouts that the process reward was asked for."""
        self.seconds = 0.0
        """How long it was at work."""

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts.

        Raises:
            EngineError: the server that is asked is gone.
        """
        task = self._look_up(rollouts)
        with self._flying(task):
            if task.mine:
                self._keep(task, self._reward.score(list(task.mine.values())))
        task.known.update((key, flight.result()) for key, flight in task.others.items())
        return [task.known[key] for key in task.keys]

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """As `score`, for coroutines."""
        task = self._look_up(rollouts)
        with self._flying(task):
            if task.mine:
                self._keep(task, await self._reward.ascore(list(task.mine.values())))
        for key, flight in task.others.items():
            task.known[key] = await asyncio.wrap_future(flight)
        return [task.known[key] for key in task.keys]

    def _look_up(self, rollouts: Sequence[Rollout]) -> "_Task":
        keys = [rollout_key(rollout, self._images, self._asker) for rollout in rollouts]
        distinct = dict(zip(keys, rollouts, strict=True))
        with self._lock:
            texts = self._journal.get(list(distinct))
            others = {key: self._in_flight[key] for key in distinct if key in self._in_flight}
            known = {key: ProcessScore.model_validate(json.loads(t)) for key, t in texts.items()}
            mine = {k: r for k, r in distinct.items() if k not in known and k not in others}
            flights: dict[bytes, _Flight] = {key: Future() for key in mine}
            self._in_flight |= flights
        return _Task(keys, mine, flights, others, known)

    @contextmanager
    def _flying(self, task: "_Task") -> Iterator[None]:
        """Around asking: others who wait for the same rollouts get scores or the exception."""
        with self._lock:
            if not self._calls:
                self._since = time.monotonic()
            self._calls += bool(task.mine)
        try:
            yield
        except BaseException as error:
            for flight in task.flights.values():
                if not flight.done():
                    flight.set_exception(error)
            raise
        finally:
            with self._lock:
                for key in task.flights:
                    del self._in_flight[key]
                self._calls -= bool(task.mine)
                if task.mine and not self._calls:
                    self.seconds += time.monotonic() - self._since

    def _keep(self, task: "_Task", scores: Sequence[ProcessScore]) -> None:
        new = dict(zip(task.mine, scores, strict=True))
        self._check_server(scores)
        ours = [key for key, score in new.items() if score.status == "unscored_ours"]
        # By json, which unlike pydantic can write half a surrogate pair of a model's thinking.
        texts = {key: json.dumps(score.model_dump(mode="python")) for key, score in new.items()}
        self._journal.put(texts, temporary=ours)
        task.known.update(new)
        for key, flight in task.flights.items():
            flight.set_result(new[key])
        with self._lock:
            self.computed += len(new)

    def _check_server(self, scores: Sequence[ProcessScore]) -> None:
        """See that somebody answers. Raises `EngineError`."""
        silent = [score for score in scores if score.reason in (_UNREACHABLE, _TIMEOUT)]
        answered = any(map(_is_answer, scores))
        with self._lock:
            self._timeouts = 0 if answered else self._timeouts + len(silent)
            late = self._timeouts >= MOST_TIMEOUTS
        gone = any(score.reason == _UNREACHABLE for score in silent)
        if silent and not answered and (gone or late):
            goes_on = (
                "give the same command again"
                if self._journal.path is None
                else "the same command goes on from the finished work, which is kept"
            )
            raise EngineError(
                f"the server no longer scores ({silent[0].detail}): when it is up again, {goes_on}"
            )


def _is_answer(score: ProcessScore) -> bool:
    """Whether somebody has judged; images and empty responses are seen to without a server."""
    if score.status == "unscored_ours":
        reason = score.reason or ""
        return reason not in (_UNREACHABLE, _TIMEOUT) and not reason.startswith("image")
    return score.scored


@dataclass(frozen=True)
class _Task:
    """One call: what is asked for, what is known, and who is asking for the rest."""

    keys: list[bytes]
    mine: dict[bytes, Rollout]
    flights: dict[bytes, _Flight]
    others: dict[bytes, _Flight]
    known: dict[bytes, ProcessScore]
