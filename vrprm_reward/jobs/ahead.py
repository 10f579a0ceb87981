"""Work on several things at a time, with the results in order: no tail of one holds up the next."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Callable[[T], R], items: Iterator[T], count: int) -> Iterator[tuple[T, R]]:
    """Each item with what `work` makes of it, in order, while up to `count` are worked on.

    What `work` raises is raised at its item's turn. The threads are left behind when the consumer
    stops early, so that an interrupt ends a command at once.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        waiting.append((item, _started(work, item)))
        if len(waiting) == count:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _started(work: Callable[[T], R], item: T) -> "Future[R]":
    future: Future[R] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work(item))
        except BaseException as error:  # noqa: BLE001  raised by whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="vrprm-job").start()
    return future
