"""Serving an application: sockets, signals, logs, and an end that loses nothing.

On SIGTERM or SIGINT the server goes on answering, new requests with 503, until what was let in is
finished or the limit is over; then it ends. A second signal ends it at once.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any

import uvicorn

from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.server.app import create_app
from vrprm_reward.server.settings import ServerSettings, is_loopback

_log = logging.getLogger(__name__)

FINISHED, LOST_WORK = 0, 1
"""Exit statuses: everything that was let in was answered; something was given up."""

_LAST_ANSWERS = 5
"""Seconds after draining for the last bytes of answers to leave."""

_PATIENCE = 15.0
"""Seconds beyond all limits after which the process ends whatever it is doing."""


def run_server(
    reward: ProcessReward, settings: ServerSettings, *, host: str, port: int, log_level: str
) -> int:
    """Serve until a signal; returns the exit status.

    Args:
        reward: what scores.
        settings: limits and secrets.
        host: name or address to bind to.
        port: 0 chooses a free one, which is logged.
        log_level: `debug`, `info`, `warning` or `error`.

    Raises:
        VRPRMError: the model cannot be loaded.
        OSError: the address cannot be bound.
    """
    # Bound here rather than by uvicorn, which ends the process when it fails.
    with _bound(host, port) as listening:
        server = _Server(reward, settings, host=host, port=port, log_level=log_level)
        if not settings.tokens and not is_loopback(host):
            _log.warning(
                "ANYONE WHO CAN REACH %s:%d MAY USE THIS SERVER: no token is set. Pass "
                "--token-file, or bind to 127.0.0.1.",
                host,
                port,
            )
        _allow_connections(settings.queue + settings.reward_queue)
        server.run(sockets=[listening])
    close = getattr(reward, "close", None)
    # A model that is still loading cannot be closed before it is loaded.
    if callable(close) and not server.loading:
        close()
    if server.watchdog is not None:
        server.watchdog.cancel()
    if server.failure is not None:
        raise server.failure
    return FINISHED if server.finished else LOST_WORK


class _Server(uvicorn.Server):
    """uvicorn's server, but it drains before it closes its sockets, and then ends with status 0."""

    def __init__(
        self,
        reward: ProcessReward,
        settings: ServerSettings,
        *,
        host: str,
        port: int,
        log_level: str,
    ) -> None:
        app = create_app(reward, settings, on_failure=self._give_up)
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=4096,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_LAST_ANSWERS,
                log_config=_log_config(log_level),
            )
        )
        self.failure: Exception | None = None
        self.watchdog: threading.Timer | None = None
        self.finished = True
        self._service = app.state.service
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._signals = 0

    @property
    def loading(self) -> bool:
        """Whether the model is being loaded."""
        return bool(self._service.loading)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it."""
        await super().startup(sockets)
        for listening in sockets or []:
            _log.info("listening on %s", _address(listening.getsockname()))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called at SIGINT and SIGTERM. uvicorn's own would end with the signal, not status 0."""
        self._signals += 1
        if self._signals > 1:
            self.finished = False
            self.force_exit = self.should_exit = True
        elif self._loop is not None:
            _log.info("%s: finishing what was let in", signal.Signals(sig).name)
            self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        limit = self._settings.drain_seconds + _LAST_ANSWERS + _PATIENCE
        # A model that is stuck in a computation cannot be ended in any other way.
        self.watchdog = threading.Timer(limit, _end_now)
        self.watchdog.daemon = True
        self.watchdog.start()
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        self.finished = await self._service.admission.drain(self._settings.drain_seconds)
        self.should_exit = True

    def _give_up(self, failure: Exception) -> None:
        self.failure = failure
        self.should_exit = True


def _end_now() -> None:
    _log.error("the model does not let go: ending without it")
    os._exit(LOST_WORK)


def _bound(host: str, port: int) -> socket.socket:
    """A socket bound to the first address of `host`."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{host}:{port} cannot be bound ({error.strerror})") from error
    return bound


def _address(name: tuple[Any, ...]) -> str:
    host = f"[{name[0]}]" if ":" in str(name[0]) else name[0]
    return f"http://{host}:{name[1]}"


def _allow_connections(wanted: int) -> None:
    """Raise the limit on open files, which many systems set to 1,024 connections."""
    if sys.platform == "win32":
        return
    import resource

    needed = wanted + 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        _log.warning(
            "%d connections may come and the limit on open files is %d: raise it (ulimit -Hn)",
            wanted,
            allowed,
        )


def _log_config(level: str) -> dict[str, Any]:
    ours = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {"vrprm_reward": ours, "uvicorn": {**ours, "level": "WARNING"}},
    }
