"""A function of two texts in a process of its own, which is ended when it takes too long.

Not `multiprocessing`: its children import the caller's main module again, and the caller may be a
training script or a Ray worker. The child speaks lines of JSON (`isolated_child.py`).
"""

import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from vrprm_reward.errors import MissingExtraError

START_SECONDS = 120.0
"""How long a child may take to import what it needs."""


@dataclass(frozen=True)
class Verdict:
    """What the function said: `value`, or the short name of why there is none."""

    value: float | None
    reason: str | None = None
    detail: str | None = None


class IsolatedFunction:
    """Calls `math`, or `module:function`, on two texts in child processes.

    A call that takes longer than `timeout` seconds ends its child and gives the reason `timeout`;
    one during which the child dies (of memory, say) gives `died`; an exception gives `raised`.
    Pickles; children are started when first needed, at most `workers` of them in each process.
    """

    def __init__(self, function: str, *, timeout: float = 10.0, workers: int = 2) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout = {timeout} is not a positive number of seconds")
        if workers < 1:
            raise ValueError(f"workers = {workers} is less than 1")
        self._function, self._timeout, self._workers = function, timeout, workers
        self._begin()

    def __call__(self, response: str, reference: str) -> Verdict:
        """Blocks for at most `timeout` seconds from its turn on, and the start of a child.

        Raises:
            MissingExtraError: the child cannot import the function.
        """
        if self._process != os.getpid():
            self._begin()
        children = self._children
        child = children.get()
        try:
            if child is None or not child.alive():
                child = _Child(self._function, self._timeout)
                self._started.append(child)
            verdict = child.ask(response, reference)
            if not child.alive():
                self._started.remove(child)
            return verdict
        finally:
            children.put(child)

    @property
    def executor(self) -> ThreadPoolExecutor:
        """As many threads as there are children, to call this from coroutines."""
        if self._process != os.getpid():
            self._begin()
        return self._threads

    def close(self) -> None:
        """End the children."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._finalizer()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._children: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        for _ in range(self._workers):
            self._children.put(None)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="vrprm-outcome")
        self._started: list[_Child] = []
        self._finalizer = weakref.finalize(self, _end_all, self._started, self._process)

    def __getstate__(self) -> dict[str, Any]:
        names = ("_function", "_timeout", "_workers")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def _end_all(children: "list[_Child]", process: int) -> None:
    if process == os.getpid():
        for child in children:
            child.end()


class _Child:
    """One process; used by one thread at a time."""

    def __init__(self, function: str, timeout: float) -> None:
        self._timeout = timeout
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "vrprm_reward.rewards.isolated_child",
                function,
                str(timeout),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        ready = self._read(START_SECONDS)
        if ready is None or "ready" not in ready:
            self.end()
            detail = "it did not start" if ready is None else ready["error"]
            hint = ": pip install 'vrprm-reward[outcome]'" if function == "math" else ""
            raise MissingExtraError(
                f"the outcome function {function!r} is not usable, {detail}{hint}"
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, response: str, reference: str) -> Verdict:
        assert self._process.stdin is not None
        started = time.monotonic()
        try:
            self._process.stdin.write(json.dumps([response, reference]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.end()
            return Verdict(None, "died", "the process of the outcome function is gone")
        answer = self._read(self._timeout)
        if answer is not None:
            return Verdict(**answer)
        late = time.monotonic() - started >= self._timeout
        self.end()
        if late:
            return Verdict(None, "timeout", f"no outcome within {self._timeout:g} s")
        return Verdict(None, "died", "the process of the outcome function ended in mid-work")

    def end(self) -> None:
        with self._lock:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None and not pipe.closed:
                    _close(pipe)

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None when none comes in time or ever will."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        line = self._process.stdout.readline()
        found: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return found


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        # What was not yet written to a dead process has nobody to read it.
        return
