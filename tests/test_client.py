import asyncio
import contextlib
import json
import multiprocessing
import os
import pickle
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

import httpx2
import pytest
from PIL import Image

from tests.server.doubles import ScriptedReward, asynchronous, p_of, picture, served_process
from vrprm_reward import client_call
from vrprm_reward.client import RemoteProcessReward, ServerRefusedError
from vrprm_reward.errors import InputError
from vrprm_reward.images import ImageSettings
from vrprm_reward.server.app import create_app
from vrprm_reward.server.settings import ServerSettings
from vrprm_reward.steps import locate_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout, Usage

TOKEN = "a-good-token"


def rollout(response: str = "One.\n\nTwo.", image=None, **more) -> Rollout:
    source = picture() if image is None else image
    return Rollout(problem=Problem(question="Why?", images=(source,)), response=response, **more)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client_call, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client_call, "_LONGEST_PAUSE", 0.05)
    monkeypatch.delenv("VRPRM_TOKEN", raising=False)


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


@asynchronous
async def test_scores_are_those_of_the_reward_with_steps_flags_and_usage():
    async with connected(ScriptedReward(), thinking=True, chunk=2) as remote:
        located = locate_steps("long a b", ["long", "b"])
        rollouts = [rollout("A.\n\nBB."), rollout(""), rollout("long a b", steps=located)]
        first, second, third = await remote.ascore(rollouts)
    assert first.p_correct == (p_of("A."), p_of("BB."))
    assert [step.text for step in first.steps] == ["A.", "BB."]
    assert first.thinking == "I looked."
    assert first.usage == Usage(prompt_tokens=10, generated_tokens=2, requests=3, rounds=2)
    assert (second.status, second.reason) == ("unscored_response", "response_empty")
    assert third.steps == located
    assert third.flags == ("thinking_truncated",)


@asynchronous
async def test_order_is_kept_over_many_chunks_and_sizes():
    reward = ScriptedReward()
    async with connected(reward, chunk=7, max_concurrency=5) as remote:
        texts = [f"{'x' * (n % 11)} {n}" for n in range(100)]
        scores = await remote.ascore([rollout(text) for text in texts])
    assert [score.steps[-1].end for score in scores] == list(map(len, texts))
    assert sorted(reward.seen) == sorted(texts)
    assert max(map(len, reward.calls)) == 7


@asynchronous
async def test_no_rollouts_give_no_scores_and_no_request():
    remote = RemoteProcessReward("http://127.0.0.1:9", total_timeout=0.1)
    assert await remote.ascore([]) == []
    await remote.aclose()


@asynchronous
async def test_images_arrive_with_their_original_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture("blue", kind="JPEG"))
    reward = ScriptedReward()
    pil = Image.new("RGB", (8, 8), "green")
    async with connected(reward) as remote:
        await remote.ascore(
            [
                rollout("a", str(tmp_path / "a.jpg")),
                rollout("b", tmp_path / "a.jpg"),
                rollout("c", pil),
                rollout("d", picture(kind="WEBP")),
            ]
        )
    images = [call.problem.images[0] for call in reward.calls[0]]
    assert images[0] == images[1] == picture("blue", kind="JPEG")
    assert images[3] == picture(kind="WEBP")
    import io

    with Image.open(io.BytesIO(images[2])) as arrived:
        assert arrived.tobytes() == pil.tobytes()


@asynchronous
async def test_an_image_that_cannot_be_read_here_unscores_its_rollout_only(tmp_path):
    async with connected(ScriptedReward()) as remote:
        scores = await remote.ascore(
            [
                rollout("a", str(tmp_path / "none.png")),
                rollout("b"),
                rollout("c", picture(size=(1, 1))),
                rollout("d", b"GIF89a"),
                rollout("e", "http://10.0.0.1/a.png"),
            ]
        )
    reasons = [score.reason for score in scores]
    assert reasons == ["image_missing", None, "image_limit", "image_format", "image_source"]


@asynchronous
async def test_what_the_server_refuses_is_unscored_and_the_rest_is_sent_again():
    strict = ServerSettings(images=ImageSettings(allow_paths=False, min_side=20))
    reward = ScriptedReward()
    async with connected(reward, settings=strict) as remote:
        small = picture(size=(10, 10))
        scores = await remote.ascore([rollout("a"), rollout("b", small), rollout("c")])
    assert [score.reason for score in scores] == [None, "image_limit", None]
    assert reward.seen == ["a", "c"]


@asynchronous
async def test_requests_that_are_too_large_are_halved():
    reward = ScriptedReward()
    async with connected(reward, settings=ServerSettings(max_batch=3)) as remote:
        scores = await remote.ascore([rollout(str(n)) for n in range(10)])
    assert all(score.scored for score in scores)
    limit = ServerSettings(max_body_bytes=2000)
    async with connected(reward, settings=limit) as remote:
        scores = await remote.ascore([rollout("a"), rollout("b" * 2000), rollout("c")])
    assert [score.reason for score in scores] == [None, "request_too_large", None]


@asynchronous
async def test_bodies_are_kept_below_their_limit():
    reward = ScriptedReward()
    async with connected(reward, max_body_bytes=2000) as remote:
        await remote.ascore([rollout("x" * 300 + str(n)) for n in range(8)])
    assert max(map(len, reward.calls)) == 1


@asynchronous
async def test_a_wrong_token_is_raised_and_names_the_remedy():
    async with connected(ScriptedReward(), settings=ServerSettings(tokens=(TOKEN,))) as remote:
        with pytest.raises(ServerRefusedError, match="VRPRM_TOKEN"):
            await remote.ascore([rollout()])
    more = {"settings": ServerSettings(tokens=(TOKEN,)), "token": TOKEN}
    async with connected(ScriptedReward(), **more) as remote:
        assert (await remote.ascore([rollout()]))[0].scored
        assert TOKEN not in repr(remote)
        assert TOKEN not in repr(remote._settings)


@asynchronous
async def test_the_token_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("VRPRM_TOKEN", TOKEN)
    async with connected(ScriptedReward(), settings=ServerSettings(tokens=(TOKEN,))) as remote:
        assert (await remote.ascore([rollout()]))[0].scored


@pytest.mark.parametrize(
    "trouble",
    [
        cut,
        noise,
        reply(500, b"oops"),
        reply(502),
        reply(503, {"error": {"message": "full"}}, "Retry-After: 0"),
        reply(504),
        reply(429, {}, f"Retry-After: {formatdate(0, usegmt=True)}"),
        reply(429, {}, "Retry-After: soon"),
        reply(408),
        reply(200, cut=20),
        reply(200, cut=0),
    ],
)
@asynchronous
async def test_trouble_that_passes_is_overcome_with_the_very_same_bytes(trouble):
    server = Scripted(trouble, trouble, reply())
    async with server.running() as url:
        remote = RemoteProcessReward(url, timeout=5)
        (score,) = await remote.ascore([rollout("abc")])
        await remote.aclose()
    assert (score.p_correct, score.steps[0].text) == ((0.25,), "abc")
    assert server.connections == 3
    assert len(set(server.bodies)) == 1


@pytest.mark.parametrize(
    ("trouble", "reason", "timeout"),
    [
        # An attempt out of time cannot tell what the trouble is, so these have all there is.
        (cut, "server_unreachable", 1.5),
        (noise, "server_unreachable", 1.5),
        (reply(200, cut=20), "server_unreachable", 1.5),
        (reply(504), "server_timeout", 1.5),
        (reply(503), "server_overloaded", 1.5),
        (reply(429), "server_overloaded", 1.5),
        (reply(500), "server_failed", 1.5),
        (slow, "server_timeout", 0.2),
        (drip, "server_timeout", 0.2),
    ],
)
@asynchronous
async def test_trouble_that_lasts_ends_in_time_as_unscored_rollouts(trouble, reason, timeout):
    server = Scripted(trouble)
    async with server.running() as url:
        remote = RemoteProcessReward(url, timeout=timeout, total_timeout=1.5, chunk=2)
        scores = await remote.ascore([rollout(str(n)) for n in range(5)])
        await remote.aclose()
    assert {(score.status, score.reason) for score in scores} == {("unscored_ours", reason)}
    assert all(score.detail for score in scores)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"not JSON",
        b"[" * 100_000,
        [],
        {"scores": []},
        {"scores": [{"status": "scored", "p_correct": [2.0], "steps": [{"start": 0, "end": 1}]}]},
        {"scores": [{"status": "scored", "p_correct": [0.5], "steps": []}]},
        {"scores": [{"status": "scored", "p_correct": [0.5], "steps": [{"start": 0, "end": 99}]}]},
        b'{"scores": [{"status": "scored", "p_correct": [NaN], "steps": [{"start":0,"end":1}]}]}',
        {"scores": [{"status": "unscored_ours", "p_correct": None, "steps": []}]},
        {"scores": [{"status": "perfect", "p_correct": [1.0], "steps": []}]},
    ],
)
@asynchronous
async def test_an_answer_that_is_none_is_never_a_reward(nonsense):
    async with Scripted(reply(200, nonsense)).running() as url:
        remote = RemoteProcessReward(url)
        (score,) = await remote.ascore([rollout("abc")])
        await remote.aclose()
    assert (score.status, score.reason) == ("unscored_ours", "server_answer")


@pytest.mark.parametrize("status", [301, 307, 400, 403, 404, 405, 415, 418, 422])
@asynchronous
async def test_other_answers_are_mistakes_in_the_settings_and_raised_at_once(status):
    server = Scripted(reply(status, {"error": {"message": "because"}}, "Location: http://evil/"))
    async with server.running() as url:
        remote = RemoteProcessReward(url)
        with pytest.raises(ServerRefusedError, match=f"{status} .because"):
            await remote.ascore([rollout()])
        await remote.aclose()
    assert server.connections == 1


@asynchronous
async def test_a_dead_server_costs_its_time_once_and_not_per_request():
    remote = RemoteProcessReward(
        "http://127.0.0.1:9", timeout=0.2, total_timeout=0.3, chunk=1, max_concurrency=2
    )
    async with asyncio.timeout(5):
        scores = await remote.ascore([rollout(str(n)) for n in range(200)])
    assert {score.reason for score in scores} == {"server_unreachable"}
    await remote.aclose()


@asynchronous
async def test_a_long_retry_after_does_not_outlast_the_total_time():
    async with Scripted(reply(503, {}, "Retry-After: 86400")).running() as url:
        remote = RemoteProcessReward(url, total_timeout=0.5)
        async with asyncio.timeout(5):
            (score,) = await remote.ascore([rollout()])
        await remote.aclose()
    assert score.reason == "server_overloaded"


@asynchronous
async def test_cancelling_a_call_leaves_nothing_behind():
    reward = ScriptedReward()
    async with connected(reward) as remote:
        call = asyncio.create_task(remote.ascore([rollout("gate")]))
        while not reward.running:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not [task for task in asyncio.all_tasks() if "score_into" in repr(task)]
        reward.opened.set()
        assert (await remote.ascore([rollout("fine")]))[0].scored


def score_in_child(remote: RemoteProcessReward, found) -> None:
    found.put((os.getpid(), remote.score([rollout("child")])[0].scored))


def test_it_pickles_forks_and_works_from_several_event_loops_and_inside_one():
    with served_process(tokens=[TOKEN]) as server:
        remote = RemoteProcessReward(server.url, token=TOKEN)
        assert remote.score([rollout()])[0].scored
        assert asyncio.run(remote.ascore([rollout()]))[0].scored
        assert asyncio.run(remote.ascore([rollout()]))[0].scored

        async def inside() -> list[ProcessScore]:
            return remote.score([rollout("inside")])

        assert asyncio.run(inside())[0].scored

        copy = pickle.loads(pickle.dumps(remote))
        assert copy.score([rollout()])[0].scored
        copy.close()

        context = multiprocessing.get_context("fork")
        found = context.Queue()
        child = context.Process(target=score_in_child, args=(remote, found))
        child.start()
        pid, scored = found.get(timeout=20)
        child.join(20)
        assert (scored, child.exitcode, pid != os.getpid()) == (True, 0, True)
        assert remote.score([rollout("after the fork")])[0].scored
        remote.close()
        found.close()
        found.join_thread()


@pytest.mark.parametrize(
    "url",
    [
        "reward:8000",
        "ftp://reward",
        "http://",
        "http://u:p@reward",
        "http://r?token=x",
        "http://[",
        "",
    ],
)
def test_a_wrong_url_is_refused_at_once_without_showing_secrets(url):
    with pytest.raises(InputError) as refused:
        RemoteProcessReward(url)
    assert "u:p" not in str(refused.value)
    assert "token=x" not in str(refused.value)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"total_timeout": float("inf")}, {"chunk": 0}])
def test_a_wrong_limit_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        RemoteProcessReward("http://reward:8000", **wrong)
