"""An OpenAI-compatible server for tests, on a real socket, whose behaviours can be switched."""

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.engines.openai_model import FakeModel

_PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass
class FakeServer(FakeModel):
    """Runs in a thread of its own between `start` and `stop` (or as a context manager)."""

    delay: float = 0.0
    """Seconds before an answer to a completion request."""

    faults: deque[Any] = field(default_factory=deque)
    """What befalls the next completion requests: None (nothing), a status, (429, "0.2") with
    Retry-After, `cut`, `half`, `half_unannounced`, `no_json`, `abort` (as by a server that ends
    requests to shut down), `hang`, or a function of no arguments to be called first."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of completion requests, probes included, faulty ones too."""

    spans: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of completion requests that were answered, by `time.monotonic`."""

    paths: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    disconnected: int = 0
    """Requests whose client went away before the answer."""

    def __post_init__(self):
        self.port = 0

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self) -> list[dict[str, Any]]:
        """Completion requests without the engine's probes."""
        probes = ("CANARY", "colour is a clear sky", "Describe it.")
        return [r for r in self.requests if not any(p in json.dumps(r) for p in probes)]

    def start(self) -> "FakeServer":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def stop(self) -> None:
        """Refuse connections from now on and cut those that are open."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def stop_soon(self) -> None:
        """As `stop`, from within the server itself."""
        self._stopping.set()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._connection(reader, writer))
        self._connections.add(task)
        self._writers.add(writer)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader, writer) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path = head.split(" ")[:2]
                length = re.search(r"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.paths.append(path)
                if not await self._answer(reader, writer, head, method, path, body):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader, writer, head, method, path, body) -> bool:
        """Answer one request; whether the connection stays open."""
        request = json.loads(body) if body else {}
        fault, began = None, time.monotonic()
        completion = "/completions" in path
        if completion:
            self.requests.append(request)
            fault = self.faults.popleft() if self.faults else None
            if callable(fault):
                fault()
                fault = None
        if fault == "cut":
            writer.transport.abort()
            return False
        if fault == "hang":
            await self._until_gone(reader, 30)
            return False
        status, answer = self.reply(path, request, head)
        headers = {}
        if isinstance(fault, int):
            status, answer = fault, {"error": {"message": "a fault on purpose"}}
        elif isinstance(fault, tuple):
            status, answer = fault[0], {"error": {"message": "busy"}}
            headers["Retry-After"] = fault[1]
        elif fault == "abort":
            for choice in answer["choices"]:
                choice["finish_reason"] = "abort"
                choice.pop("logprobs", None)
                if "text" in choice:
                    choice["text"] = ""
                else:
                    choice["message"]["content"] = ""
        payload = json.dumps(answer).encode()
        if fault == "no_json":
            payload = b"<html>Welcome</html>"
        if completion and self.delay:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            gone = await self._until_gone(reader, self.delay)
            self.in_flight -= 1
            if gone:
                return False
        if completion:
            self.spans.append((began, time.monotonic()))
        announced = len(payload)
        if fault in ("half", "half_unannounced"):
            payload = payload[: len(payload) // 2]
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Whatever')}"]
        if fault == "half_unannounced":
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(announced)
        lines += [f"{key}: {value}" for key, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        await writer.drain()
        return fault not in ("half", "half_unannounced")

    async def _until_gone(self, reader, seconds: float) -> bool:
        """Wait; whether the client went away meanwhile."""
        try:
            early = await asyncio.wait_for(reader.read(1), seconds)
        except TimeoutError:
            return False
        assert early == b""
        self.disconnected += 1
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
