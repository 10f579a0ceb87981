"""Run coroutines from ordinary functions, also where an event loop is already running."""

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from vrprm_reward.errors import EngineClosedError

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a thread of its own, started when first used, one per object and process."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result. An interrupt cancels the coroutine.

        Raises:
            EngineClosedError: `close` was called meanwhile.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise EngineClosedError("it was closed before the work was done") from None
        except BaseException:
            future.cancel()
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin to run, without waiting for the end. `close` cancels what it returns."""
        self._begin_anew_if_forked()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="vrprm-loop", daemon=True
                )
                self._thread.start()
            # Under the lock, so that no work comes to a loop behind its end.
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Cancel what is running, then run `last` there, and end the thread."""
        self._begin_anew_if_forked()
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            if last is not None:
                last.close()
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(last), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _begin_anew_if_forked(self) -> None:
        # A fork has neither the thread nor, for certain, a lock that anybody will release.
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


async def _wind_up(last: Coroutine[Any, Any, None] | None) -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    if last is not None:
        await last
