"""One thread that owns the model and merges whatever is asked of it into batches."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from vrprm_reward.engines.local.encode import EncodedPrompt
from vrprm_reward.engines.local.forward import Forward
from vrprm_reward.errors import EngineClosedError, EngineError, VRPRMError

_GATHERING_SECONDS = 0.002
"""How long the thread waits for company before it starts a batch that is not full."""


@dataclass(eq=False)
class Job:
    """One prompt that waits for its answer. `max_tokens` None: a judgement."""

    prompt: EncodedPrompt
    max_tokens: int | None = None
    stop: str | None = None
    future: Future[Any] = field(default_factory=Future)

    def __len__(self) -> int:
        return len(self.prompt) + (self.max_tokens or 0)


class Scheduler:
    """Runs jobs in batches of at most `batch_tokens` padded tokens, in a thread of its own."""

    def __init__(self, forward: Forward, *, batch_tokens: int) -> None:
        self._forward = forward
        self._batch_tokens = batch_tokens
        self._arrivals: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="vrprm-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """Queue a job. Cancelling its future before it runs frees its place.

        Raises:
            EngineClosedError: `close` was called.
        """
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed: load it again to go on scoring")
            self._arrivals.put(job)
        return job.future

    def close(self) -> None:
        """End the thread after the batch that is running; waiting jobs fail."""
        with self._lock:
            self._closed = True
            self._arrivals.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._gather():
            batch = self._take_batch()
            if batch:
                self._run_batch(batch)
        error = EngineClosedError("the engine was closed while this was waiting")
        for job in self._waiting:
            job.future.set_exception(error)

    def _gather(self) -> bool:
        """Collect arrivals; blocks while there is nothing to do. False: time to end."""
        block = not self._waiting
        while True:
            try:
                job = self._arrivals.get(block=True, timeout=None if block else _GATHERING_SECONDS)
            except queue.Empty:
                return True
            if job is None:
                return False
            block = False
            self._waiting.append(job)

    def _take_batch(self) -> list[Job]:
        """The oldest job and those like it, of similar length, up to the token budget."""
        self._waiting = [job for job in self._waiting if not job.future.cancelled()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        alike = [
            job
            for job in self._waiting
            if (job.max_tokens is None) == (oldest.max_tokens is None) and job.stop == oldest.stop
        ]
        alike.sort(key=lambda job: abs(len(job) - len(oldest)))
        batch: list[Job] = []
        longest = 0
        for job in alike:
            longest = max(longest, len(job))
            if batch and longest * (len(batch) + 1) > self._batch_tokens:
                break
            batch.append(job)
        taken = set(map(id, batch))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return [job for job in batch if job.future.set_running_or_notify_cancel()]

    def _run_batch(self, batch: list[Job]) -> None:
        prompts = [job.prompt for job in batch]
        answers: Sequence[Any]
        try:
            if batch[0].max_tokens is None:
                answers = self._forward.judge(prompts)
            else:
                limits = [job.max_tokens or 1 for job in batch]
                answers = self._forward.generate(prompts, limits, batch[0].stop)
        except Exception as error:  # noqa: BLE001  the thread serves other callers and must live on
            for job in batch:
                job.future.set_exception(_as_engine_error(error))
            return
        for job, answer in zip(batch, answers, strict=True):
            job.future.set_result(answer)


def _as_engine_error(error: Exception) -> VRPRMError:
    if isinstance(error, VRPRMError):
        return error
    wrapped = EngineError(f"the model failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
