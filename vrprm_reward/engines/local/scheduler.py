"""One thread that owns the model: it merges whatever is asked of it into forward passes.

Every pass takes one token of each row that is generating and, up to the token budget, pieces of
prompts. A finished row leaves at once and a new one takes its place, so nothing waits for the
longest. A prompt starts behind the longest prefix that any sequence has computed already; while
another prompt is just computing a prefix that is worth having, it waits for it.
"""

import queue
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from vrprm_reward.engines.engine import Generation, Judgement
from vrprm_reward.engines.local.cost import PassCost
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.engines.local.kv_pool import KVPool
from vrprm_reward.engines.local.limits import Limits, is_out_of_memory
from vrprm_reward.engines.local.packed import PackedModel
from vrprm_reward.engines.local.segments import next_segment, note_computed
from vrprm_reward.engines.local.sequences import Job
from vrprm_reward.engines.local.starting import start_jobs
from vrprm_reward.engines.local.tokens import Segment, VisualFeatures
from vrprm_reward.engines.local.vision import Vision
from vrprm_reward.errors import EngineClosedError, EngineError, VRPRMError
from vrprm_reward.images import FinalImage

_SHORTEST_WAIT, _LONGEST_WAIT = 0.001, 0.03
"""Seconds to wait for rows that are expected to ask again shortly."""


@dataclass
class Stats:
    """Counters since the engine started."""

    passes: int = 0
    tokens: int = 0
    """Tokens pushed through the language model."""

    seconds_in_model: float = 0.0
    seconds_waiting: float = 0.0
    """Time without any work to do, or waiting for company."""


@dataclass(frozen=True)
class _Release:
    share: Hashable


@dataclass(frozen=True)
class _Expect:
    share: Hashable


class Scheduler:
    """Runs jobs in a thread of its own.

    Args:
        model: the language model.
        vision: the vision tower with its cache.
        encoder: the tokenizer's side.
        pool: cached sequences under their budget.
        ends: ids of the tokens that end generated text.
        pass_tokens: bound on the tokens of one forward pass.
        deterministic: wait until every expected share has asked, without a time limit, so that
            what shares a pass never depends on timing.
    """

    def __init__(
        self,
        model: PackedModel,
        vision: Vision,
        encoder: PromptEncoder,
        pool: KVPool,
        *,
        ends: frozenset[int],
        pass_tokens: int,
        deterministic: bool = False,
    ) -> None:
        self.stats = Stats()
        self.cost = PassCost()
        self._model = model
        self._vision = vision
        self._encoder = encoder
        self._pool = pool
        self._limits = Limits(pool, pass_tokens)
        self._ends = ends
        self._deterministic = deterministic
        self._inbox: queue.SimpleQueue[Job | _Release | _Expect | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._expected: dict[Hashable, int] = {}
        self._places = count()
        self._last_pass = 0.0
        self._retry = False
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="vrprm-engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """Queue a job. Cancelling its future frees its place.

        Raises:
            EngineClosedError: `close` was called.
        """
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed: load it again to go on scoring")
            self._inbox.put(job)
        return job.future

    def expect(self, share: Hashable) -> None:
        """Say that `share` will ask soon."""
        self._inbox.put(_Expect(share))

    def release(self, share: Hashable) -> None:
        """Say that `share` will not ask again."""
        self._inbox.put(_Release(share))

    def close(self) -> None:
        """End the thread after the pass that is running; unfinished jobs fail."""
        with self._lock:
            self._closed = True
            self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._receive():
            self._drop_cancelled()
            try:
                if self._deterministic:
                    self._waiting.sort(key=lambda job: job.rank)
                self._start()
                segments, jobs = self._next_pass()
                if segments:
                    self._pass(segments, jobs)
            except Exception as error:  # noqa: BLE001  the thread serves other callers
                if not is_out_of_memory(error) or not (self._put_back() or self._limits.halve()):
                    self._fail([*self._running, *self._waiting], error)
            # What ended may have made room or left a prefix for what waits.
            self._retry = bool(self._waiting)
        self._fail(
            [*self._running, *self._waiting],
            EngineClosedError("the engine was closed while this was waiting"),
        )

    def _start(self) -> None:
        """Begin what can begin. Raises what `start_jobs` does, unless others can go on without."""
        try:
            start_jobs(
                self._waiting, self._running, self._pool, pass_tokens=self._limits.pass_tokens
            )
        except Exception as error:
            if not is_out_of_memory(error) or not self._running:
                raise
            self._limits.let_nobody_begin()
        finally:
            # In the order in which they asked, those included that were begun before it failed.
            self._waiting = [job for job in self._waiting if job.sequence is None]

    # --- arrivals -----------------------------------------------------------------------------

    def _receive(self) -> bool:
        """Take what has arrived; wait while there is nothing to do, or a little for company.

        Who is expected is not waited for while there is enough for a whole pass: prompts are made
        ready by other threads meanwhile.
        """
        began = time.monotonic()
        enough = not self._deterministic and self._fills_a_pass()
        patience = min(max(self._last_pass / 4, _SHORTEST_WAIT), _LONGEST_WAIT)
        fresh = self._retry
        self._retry = False
        while True:
            # Waiting jobs that could not start can only start after a message.
            idle = not self._running
            timeout = None if idle and not fresh else 0.0
            if not enough and not (idle and not fresh) and self._company_is_coming():
                left = began + patience - time.monotonic()
                timeout = None if self._deterministic else max(0.0, left)
            try:
                item = (
                    self._inbox.get(timeout=timeout) if timeout != 0 else self._inbox.get_nowait()
                )
            except queue.Empty:
                break
            if item is None:
                return False
            self._take(item)
            fresh = True
        self.stats.seconds_waiting += time.monotonic() - began
        return True

    def _take(self, item: Job | _Release | _Expect) -> None:
        if isinstance(item, _Release):
            self._expected.pop(item.share, None)
            self._pool.release(item.share)
            return
        if item.share not in self._expected:
            self._expected[item.share] = next(self._places)
        if isinstance(item, Job):
            if self._deterministic:
                item.rank = (self._expected[item.share], item.number)
            self._waiting.append(item)

    def _company_is_coming(self) -> bool:
        """Whether some share that is at work has nothing here right now."""
        here = {job.share for job in self._waiting} | {job.share for job in self._running}
        return len(here) < len(self._expected)

    def _fills_a_pass(self) -> bool:
        """Whether the jobs that have begun have tokens enough for a pass."""
        left = self._limits.pass_tokens
        for job in self._running:
            left -= 1 if job.written else len(job) - job.done
            if left <= 0:
                return True
        return False

    def _drop_cancelled(self) -> None:
        for job in [j for j in self._running if j.future.cancelled()]:
            self._retire(job)
        self._waiting = [job for job in self._waiting if not job.future.cancelled()]

    # --- one pass -----------------------------------------------------------------------------

    def _next_pass(self) -> tuple[list[Segment], list[Job]]:
        """Rows that generate first, then prompts in order of arrival, up to the token budget."""
        segments: list[Segment] = []
        jobs: list[Job] = []
        left = self._limits.pass_tokens
        for job in sorted(self._running, key=lambda job: (not job.written, job.rank)):
            if left <= 0:
                break
            if not job.keep and segments and len(job) - job.done > left:
                continue
            if not self._see_images(job):
                continue
            segment = next_segment(job, left)
            left -= len(segment.ids)
            segments.append(segment)
            jobs.append(job)
        return segments, jobs

    def _see_images(self, job: Job) -> bool:
        """Encode the job's images if tokens of theirs are still to come. False: it has failed."""
        if job.features is None and (job.prompt.visual[job.done :] >= 0).any():
            try:
                job.features = self._features(job.prompt.images)
            except Exception as error:  # noqa: BLE001  the thread serves other callers
                self._fail([job], error)
                return False
        return True

    def _features(self, images: Sequence[FinalImage]) -> VisualFeatures | None:
        """What the vision tower makes of images; once more without idle sequences, if need be.

        What it needs depends on the images alone, so smaller passes would not help.

        Raises:
            EngineError: there is not enough memory for these images.
        """
        for _ in range(2):
            try:
                return self._vision.features(images)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Out here, since the error held what the vision tower had computed.
            self._limits.drop_idle()
        sizes = ", ".join("{} x {}".format(*image.image.size) for image in images)
        raise EngineError(
            f"no memory for images of {sizes} pixels in the vision tower: lower pixels.max_pixels "
            "in the profile"
        )

    def _pass(self, segments: list[Segment], jobs: list[Job]) -> None:
        began = time.monotonic()
        try:
            logits = self._model.run(segments)
            answers = logits.argmax(-1).tolist(), self._verdicts(logits)
        except Exception as error:  # noqa: BLE001  the thread serves other callers
            if is_out_of_memory(error) and self._limits.halve():
                return
            self._fail(jobs, error)
            return
        self._last_pass = time.monotonic() - began
        tokens = sum(len(s.ids) for s in segments)
        self.stats.seconds_in_model += self._last_pass
        self.stats.passes += 1
        self.stats.tokens += tokens
        self.cost.note(tokens, self._last_pass)
        self._limits.went_well()
        row = 0
        for segment, job in zip(segments, jobs, strict=True):
            note_computed(job, segment)
            if segment.logits:
                self._answer(job, answers[0][row], answers[1][row])
                row += 1

    def _verdicts(self, logits: torch.Tensor) -> list[tuple[float, float]]:
        log_p = logits.log_softmax(-1)[:, list(self._encoder.verdict_ids)]
        return [(float(l0), float(l1)) for l0, l1 in log_p.tolist()]

    def _answer(self, job: Job, token: int, verdict: tuple[float, float]) -> None:
        if not job.generates:
            self._finish(job, Judgement(*verdict, prompt_tokens=len(job)))
            return
        assert job.max_tokens is not None
        ended = token in self._ends
        if not ended:
            job.written.append(token)
            ended = job.stop is not None and job.stop in self._decode(
                job.written[-2 * len(job.stop) :]
            )
        if ended or len(job.written) >= job.max_tokens:
            generation = Generation(
                text=self._decode(job.written),
                finish="stop" if ended else "length",
                prompt_tokens=len(job),
                generated_tokens=len(job.written),
            )
            self._finish(job, generation)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._encoder.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    # --- ending -------------------------------------------------------------------------------

    def _finish(self, job: Job, answer: Generation | Judgement) -> None:
        self._retire(job)
        if job.future.set_running_or_notify_cancel():
            job.future.set_result(answer)

    def _retire(self, job: Job) -> None:
        self._running.remove(job)
        sequence = job.sequence
        assert sequence is not None
        if job.keep:
            sequence.writer = None
        else:
            sequence.readers -= 1

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        for job in jobs:
            if job in self._running:
                self._retire(job)
            else:
                self._waiting.remove(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_as_engine_error(error))

    # --- running out of memory ----------------------------------------------------------------

    def _put_back(self) -> bool:
        """A sequence found no memory to grow: let the younger half of those being filled wait.

        What is put back begins again later and answers the same. False: there is nothing to put
        back.
        """
        fillers = sorted((job for job in self._running if job.keep), key=lambda job: job.rank)
        younger = fillers[(len(fillers) + 1) // 2 :]
        for job in younger:
            self._running.remove(job)
            self._pool.take_back(job)
        if younger:
            self._waiting = sorted([*younger, *self._waiting], key=lambda job: job.rank)
            self._limits.let_nobody_begin()
        return bool(younger)


def _as_engine_error(error: Exception) -> VRPRMError:
    if isinstance(error, VRPRMError):
        return error
    wrapped = EngineError(f"the model failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
