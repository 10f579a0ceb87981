"""What a client is tried against: an app without sockets, and servers that answer as told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import httpx2

from tests.server.doubles import picture
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.server.app import create_app
from vrprm_reward.server.settings import ServerSettings
from vrprm_reward.types import Problem, Rollout

TOKEN = "a-good-token"


def rollout(response: str = "One.\n\nTwo.", image=None, **more) -> Rollout:
    source = picture() if image is None else image
    return Rollout(problem=Problem(question="Why?", images=(source,)), response=response, **more)


@contextlib.asynccontextmanager
async def connected(reward, *, settings=None, **more) -> AsyncIterator[RemoteProcessReward]:
    """A client of an app in this process, without sockets."""
    app = create_app(reward, settings or ServerSettings())
    remote = RemoteProcessReward("http://server", **more)
    async with app.router.lifespan_context(app):
        pool = await remote._pool()
        pool.client._transport = httpx2.ASGITransport(app=app)
        pool.client._mounts = {}
        yield remote
        await remote.aclose()


class Scripted:
    """A server whose n-th connection is answered by the n-th function; the last one repeats."""

    def __init__(self, *answers: Callable) -> None:
        self.answers = answers
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[None]] = set()

        def begin(reader, writer) -> None:
            tasks.add(asyncio.create_task(self._serve(reader, writer)))

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader, writer) -> None:
        answer = self.answers[min(self.connections, len(self.answers) - 1)]
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            self.heads.append(head)
            self.bodies.append(await reader.readexactly(length))
            await answer(writer, json.loads(self.bodies[-1]))


def reply(status: int = 200, body: object = None, *headers: str, cut: int | None = None):
    async def answer(writer, asked) -> None:
        content = good(asked) if body is None else body
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        more = "".join(f"{header}\r\n" for header in headers)
        writer.write(
            f"HTTP/1.1 {status} X\r\nConnection: close\r\n{more}"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
        )
        writer.write(data[:cut])
        await writer.drain()

    return answer


def good(asked) -> dict:
    return {
        "scores": [
            {
                "status": "scored",
                "p_correct": [0.25],
                "steps": [{"start": 0, "end": len(each["response"])}],
                "usage": {"prompt_tokens": 3, "new_in_a_later_version": 1},
                "new_in_a_later_version": 1,
            }
            for each in asked["rollouts"]
        ]
    }


async def slow(writer, asked) -> None:
    await asyncio.sleep(5)


async def drip(writer, asked) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def cut(writer, asked) -> None:
    writer.transport.abort()


async def noise(writer, asked) -> None:
    writer.write(b"\x00\x01 not HTTP at all \r\n\r\n")
