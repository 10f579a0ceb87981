"""Rewards whose answers a test knows, and apps and processes that serve them."""

import asyncio
import base64
import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from tests.judged import judged
from vrprm_reward.server.app import create_app
from vrprm_reward.server.settings import ServerSettings
from vrprm_reward.types import ProcessScore, Rollout, Usage

LIMIT = 30.0


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a coroutine, run with a limit on its time."""

    @functools.wraps(test)
    def run(*arguments: Any, **more: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **more), LIMIT))

    return run


def p_of(text: str) -> float:
    """The probability that `ScriptedReward` gives to a step."""
    return len(text) % 10 / 10 + 0.05


class ScriptedReward:
    """Scores a step by its length. The response may ask for trouble:

    `empty` no steps; `fail` unscored by our fault; `raise` an exception; `sleep X` takes X
    seconds; `gate` waits until `opened` is set; `short` loses a score.
    """

    def __init__(self) -> None:
        self.calls: list[list[Rollout]] = []
        self.opened = threading.Event()
        self.running = 0
        self.most_running = 0

    @property
    def seen(self) -> list[str]:
        return [rollout.response for call in self.calls for rollout in call]

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        raise NotImplementedError

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        self.calls.append(list(rollouts))
        self.running += len(rollouts)
        self.most_running = max(self.running, self.most_running)
        try:
            scores = [await self._score(rollout) for rollout in rollouts]
        finally:
            self.running -= len(rollouts)
        return scores[:-1] if any("short" in r.response for r in rollouts) else scores

    async def _score(self, rollout: Rollout) -> ProcessScore:
        text = rollout.response
        if "raise" in text:
            raise RuntimeError(f"secret text of a library at /secret/place ({text})")
        if "fail" in text:
            return ProcessScore(
                status="unscored_ours", reason="engine", detail="see /secret/place for more"
            )
        if found := re.search(r"sleep ([\d.]+)", text):
            await asyncio.sleep(float(found[1]))
        while "gate" in text and not self.opened.is_set():
            await asyncio.sleep(0.005)
        return judged(
            rollout,
            p_of,
            thinking="I looked.",
            flags=("thinking_truncated",) if "long" in text else (),
            usage=Usage(prompt_tokens=10, generated_tokens=2, requests=3, rounds=2),
        )


class LoadingReward(ScriptedReward):
    """Loads for ever, and cannot be closed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    @property
    def engine(self) -> None:
        with self._lock:
            threading.Event().wait()

    def close(self) -> None:
        with self._lock:
            pass


def picture(color: str = "red", size: tuple[int, int] = (32, 24), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


PICTURE = data_url(picture())


def item(response: str = "One.\n\nTwo.", **more: Any) -> dict[str, Any]:
    return {"question": "How many?", "images": [PICTURE], "response": response, **more}


def label(**more: Any) -> dict[str, Any]:
    return {"question": "How many?", "images": [PICTURE], "answer": "3", **more}


def query(response: str = "One.\n\nTwo.", prompt: str = "User: How many?\nAssistant: ") -> Any:
    return {"query": [prompt + response], "prompts": [prompt], "labels": [label()]}


@contextlib.asynccontextmanager
async def serving(reward: Any, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an app in this process, its model loaded."""
    settings.setdefault("unscored_reward", -1.0)
    app = create_app(reward, ServerSettings(**settings))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url="http://server", timeout=LIMIT
        ) as client,
    ):
        await app.state.service.readiness.loaded.wait()
        client.service = app.state.service  # type: ignore[attr-defined]
        yield client


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class Process:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._listening = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self._listening.wait(LIMIT) or not self.url:
            process.kill()
            raise AssertionError("\n".join(self.lines))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        self.reader.join(1)
        return "\n".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip())
                if found := re.search(r"listening on (http://\S+)", line):
                    self.url = found[1]
                    self._listening.set()
        self._listening.set()


@contextlib.contextmanager
def served_process(**settings: Any) -> Iterator[Process]:
    """A real server with a `ScriptedReward`, ended with the block if it still runs."""
    folder = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.server.serve_scripted", json.dumps(settings)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    server = None
    try:
        server = Process(child)
        yield server
    finally:
        child.kill()
        child.wait()
        if server is not None:
            server.reader.join(LIMIT)
