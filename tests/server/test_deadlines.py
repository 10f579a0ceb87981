"""Slow disks and hosts hold up nobody but those who need them, and no answer beyond its time."""

import asyncio
import threading

import pytest

from tests.server.doubles import ScriptedReward, asynchronous, item, label, query, serving, until
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.encoded import encoded_image

IMAGES = ImageSettings(allow_paths=False, allow_urls=True, url_hosts=("slow",))


@pytest.fixture
def slow_host(monkeypatch):
    """A host that answers nothing until the event is set."""
    answers = threading.Event()
    asked = []

    def encoded(reference, settings):
        if reference.startswith("http"):
            asked.append(reference)
            answers.wait(20)
            reference = item()["images"][0]
        return encoded_image(reference, settings)

    monkeypatch.setattr("vrprm_reward.server.drafts.encoded_image", encoded)
    answers.asked = asked
    yield answers
    answers.set()


def with_urls(count):
    return [item(f"Slow {n}.", images=[f"http://slow/{n}.png"]) for n in range(count)]


@asynchronous
async def test_a_slow_image_host_holds_up_no_request_that_does_not_need_it(slow_host):
    async with serving(ScriptedReward(), images=IMAGES) as client:
        slow = asyncio.create_task(client.post("/v1/score", json={"rollouts": with_urls(64)}))
        await until(lambda: len(slow_host.asked) == 16)
        quick = await client.post("/v1/score", json={"rollouts": [item()]})
        rewarded = await client.post("/get_reward", json=query())
        assert not slow.done()
        slow_host.set()
        answer = await slow
    assert quick.json()["scores"][0]["status"] == "scored"
    assert rewarded.json()["extra_logs"]["vrprm_unscored"] == [0.0]
    assert {score["status"] for score in answer.json()["scores"]} == {"scored"}


@asynchronous
async def test_get_reward_answers_in_its_time_although_an_image_does_not_come(slow_host):
    async with serving(ScriptedReward(), images=IMAGES, reward_seconds=0.3) as client:
        body = query() | {"labels": [label(images=["http://slow/a.png"])]}
        answer = await client.post("/get_reward", json=body)
        assert not slow_host.is_set()
        slow_host.set()
    assert answer.json()["rewards"] == [-1.0]


@asynchronous
async def test_a_request_that_is_not_even_parsed_in_its_time_is_answered(monkeypatch):
    monkeypatch.setattr("vrprm_reward.server.service._LAST_SECONDS", 0.1)
    release = threading.Event()
    async with serving(ScriptedReward(), reward_seconds=0.1, score_seconds=0.1) as client:
        for name in ("_parse_reward", "_parse_score"):
            monkeypatch.setattr(client.service, name, lambda _: release.wait(20))
        rewarded = await client.post("/get_reward", json=query())
        scored = await client.post("/v1/score", json={"rollouts": [item()]})
        release.set()
    assert (rewarded.status_code, rewarded.json()["error"]["code"]) == (503, "late")
    assert (scored.status_code, scored.json()["error"]["code"]) == (504, "late")
