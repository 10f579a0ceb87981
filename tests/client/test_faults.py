import asyncio
from email.utils import formatdate

import pytest

from tests.client.servers import (
    Scripted,
    cut,
    drip,
    noise,
    reply,
    rollout,
    slow,
)
from tests.server.doubles import asynchronous
from vrprm_reward.client import RemoteProcessReward, ServerRefusedError
from vrprm_reward.errors import InputError


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


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def no_proxies(monkeypatch):
    for name in (*PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("proxy", "says"),
    [("socks5://me:hidden@localhost:1080", "httpx2.socks."), ("foo://me:hidden@h", "known kind")],
)
def test_a_proxy_that_cannot_be_used_is_an_error_with_its_remedy(
    proxy, says, no_proxies, monkeypatch
):
    monkeypatch.setenv("ALL_PROXY", proxy)
    remote = RemoteProcessReward("http://reward:8000")
    with pytest.raises(InputError, match=says) as refused:
        remote.score([rollout()])
    assert "hidden" not in str(refused.value)
    monkeypatch.setenv("NO_PROXY", "*")
    assert RemoteProcessReward("http://127.0.0.1:9", total_timeout=0.2).score([rollout()])


def test_what_fails_behind_a_proxy_says_so_without_its_password(no_proxies, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:hidden@127.0.0.1:9/")
    (score,) = RemoteProcessReward("http://reward:8000", total_timeout=0.3).score([rollout()])
    assert "cannot be reached through the proxy http://127.0.0.1:9 (" in score.detail
    assert "hidden" not in score.detail
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (score,) = RemoteProcessReward("http://127.0.0.1:9", total_timeout=0.3).score([rollout()])
    assert "proxy" not in score.detail
