import asyncio

import pytest

from tests.server.doubles import ScriptedReward, asynchronous, item, query, serving, until


def post(client, *responses, **more):
    rollouts = [item(response) for response in responses]
    return asyncio.create_task(client.post("/v1/score", json={"rollouts": rollouts}, **more))


@asynchronous
async def test_a_full_queue_answers_503_with_retry_after_at_once():
    reward = ScriptedReward()
    async with serving(reward, queue=2, retry_after_seconds=7) as client:
        first = [post(client, f"gate {n}") for n in range(2)]
        await until(lambda: reward.running == 2)
        refused = await post(client, "gate 3")
        health = await client.get("/health")
        reward.opened.set()
        accepted = await asyncio.gather(*first)
        after = await post(client, "fine")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
    assert refused.json()["error"]["code"] == "queue_full"
    assert health.json() == {"status": "alive"}
    assert [a.status_code for a in (*accepted, after)] == [200] * 3


@asynchronous
async def test_held_bytes_are_bounded_but_one_request_always_comes_in():
    reward = ScriptedReward()
    async with serving(reward, max_held_bytes=100) as client:
        first = post(client, "gate")
        await until(lambda: reward.running == 1)
        assert (await post(client, "more")).status_code == 503
        reward.opened.set()
        assert (await first).status_code == 200


@asynchronous
async def test_rollouts_take_turns_first_come_first_served():
    reward = ScriptedReward()
    async with serving(reward, max_running=2) as client:
        asked = [post(client, "gate a")]
        await until(lambda: reward.running == 1)
        for name in ("gate b", "gate c", "gate d"):
            asked.append(post(client, name, name))
            await asyncio.sleep(0.02)
        assert reward.seen == ["gate a"]
        reward.opened.set()
        await asyncio.gather(*asked)
    assert [call[0].response for call in reward.calls] == ["gate a", "gate b", "gate c", "gate d"]
    assert reward.most_running == 2


@asynchronous
async def test_a_request_larger_than_all_turns_together_goes_alone():
    reward = ScriptedReward()
    async with serving(reward, max_running=2) as client:
        answer = await post(client, "a", "b", "c")
    assert len(answer.json()["scores"]) == 3


@asynchronous
async def test_the_same_request_while_it_runs_is_joined_and_scored_once():
    reward = ScriptedReward()
    async with serving(reward) as client:
        asked = [post(client, "gate same") for _ in range(3)]
        other = post(client, "gate other")
        await until(lambda: reward.running == 2)
        await asyncio.sleep(0.05)
        reward.opened.set()
        answers = await asyncio.gather(*asked, other)
        metrics = (await client.get("/metrics")).text
    assert sorted(reward.seen) == ["gate other", "gate same"]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert "vrprm_joined_requests_total 2.0" in metrics


@asynchronous
async def test_a_finished_request_is_scored_anew():
    reward = ScriptedReward()
    async with serving(reward) as client:
        await post(client, "same")
        await post(client, "same")
    assert reward.seen == ["same", "same"]


@asynchronous
async def test_a_request_that_waited_too_long_is_504_and_a_retry_joins_it():
    reward = ScriptedReward()
    async with serving(reward, score_seconds=0.2) as client:
        late = await post(client, "gate late")
        retried = post(client, "gate late")
        await asyncio.sleep(0.05)
        reward.opened.set()
        found = await retried
    assert (late.status_code, late.json()["error"]["code"]) == (504, "late")
    assert found.json()["scores"][0]["status"] == "scored"
    assert reward.seen == ["gate late"]


@asynchronous
async def test_a_request_that_nobody_waits_for_is_dropped_at_its_turn():
    reward = ScriptedReward()
    async with serving(reward, max_running=1, score_seconds=0.2) as client:
        first, second = post(client, "gate first"), post(client, "never")
        assert (await first).status_code == (await second).status_code == 504
        reward.opened.set()
        assert (await post(client, "next")).status_code == 200
        metrics = (await client.get("/metrics")).text
    assert reward.seen == ["gate first", "next"]
    assert "vrprm_abandoned_requests_total 1.0" in metrics


@asynchronous
async def test_draining_finishes_what_was_let_in_and_refuses_the_rest():
    reward = ScriptedReward()
    async with serving(reward, max_running=1, reward_queue=1) as client:
        inside = [post(client, "gate a"), post(client, "gate b")]
        reward_inside = asyncio.create_task(client.post("/get_reward", json=query("gate c")))
        await until(lambda: client.service.admission._held.total() == 3)
        outside = asyncio.create_task(client.post("/get_reward", json=query("gate d")))
        await until(lambda: client.service.admission._lobby)
        drained = asyncio.create_task(client.service.admission.drain(20))
        await asyncio.sleep(0)
        refused = [await post(client, "e"), await client.post("/get_reward", json=query("f"))]
        ready, health = await client.get("/ready"), await client.get("/health")
        reward.opened.set()
        answers = await asyncio.gather(*inside, reward_inside)
        assert await drained
    assert [a.status_code for a in answers] == [200] * 3
    assert [a.status_code for a in refused] == [503, 503]
    assert refused[0].json()["error"]["code"] == "draining"
    assert (await outside).status_code == 503
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert health.status_code == 200


@asynchronous
async def test_draining_ends_at_its_limit_and_says_what_was_lost(caplog):
    async with serving(ScriptedReward(), unscored_reward=-1.0) as client:
        scored = post(client, "gate")
        rewarded = asyncio.create_task(client.post("/get_reward", json=query("gate")))
        await until(lambda: client.service.admission._held.total() == 2)
        await asyncio.sleep(0.05)
        assert not await client.service.admission.drain(0.1)
        assert (await scored).status_code == 503
        assert (await rewarded).json()["rewards"] == [-1.0]
    assert "2 requests unfinished" in caplog.text


@asynchronous
async def test_a_body_that_does_not_come_is_408():
    async with serving(ScriptedReward(), body_seconds=0.1) as client:

        async def slow():
            yield b'{"rollouts":'
            await asyncio.sleep(5)

        headers = {"Content-Type": "application/json"}
        answer = await client.post("/v1/score", content=slow(), headers=headers)
    assert answer.status_code == 408


@pytest.mark.parametrize("count", [200])
@asynchronous
async def test_nothing_is_lost_doubled_or_mixed_up_among_many_requests(count):
    reward = ScriptedReward()
    async with serving(reward, max_running=8) as client:
        texts = [[f"{'x' * (n % 9)} {n}", f"sleep 0.00{n % 3} {n}"] for n in range(count)]
        answers = await asyncio.gather(*(post(client, *pair) for pair in texts))
    assert sorted(reward.seen) == sorted(text for pair in texts for text in pair)
    for pair, answer in zip(texts, answers, strict=True):
        ends = [score["steps"][0]["end"] for score in answer.json()["scores"]]
        assert ends == [len(text) for text in pair]


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr("vrprm_reward.server.admission._GRACE", 0.1)


@asynchronous
async def test_a_job_that_nobody_waits_for_is_dropped_before_its_turn_and_gives_its_bytes_back(
    short_grace,
):
    reward = ScriptedReward()
    async with serving(reward, max_running=1, score_seconds=1.0) as client:
        admission = client.service.admission
        first = post(client, "gate first")
        await until(lambda: reward.running == 1)
        asked = [post(client, f"never {n}") for n in range(5)]
        assert {(await each).status_code for each in (first, *asked)} == {504}
        await until(lambda: len(admission._jobs) == 1)
        assert not admission._turns
        assert admission._held_bytes == next(iter(admission._jobs.values())).size
        reward.opened.set()
        assert (await post(client, "next")).status_code == 200
        metrics = (await client.get("/metrics")).text
    assert reward.seen == ["gate first", "next"]
    assert admission._held_bytes == 0
    assert "vrprm_abandoned_requests_total 5.0" in metrics
    assert "vrprm_waiting_rollouts 0.0" in metrics


@asynchronous
async def test_a_retry_within_the_grace_joins_and_keeps_its_turn(short_grace):
    reward = ScriptedReward()
    async with serving(reward, max_running=1, score_seconds=2.0) as client:
        first = post(client, "gate first")
        await until(lambda: reward.running == 1)
        second = post(client, "second")
        assert (await first).status_code == (await second).status_code == 504
        retried = post(client, "second")
        await asyncio.sleep(0.2)
        reward.opened.set()
        assert (await retried).status_code == 200
        metrics = (await client.get("/metrics")).text
    assert reward.seen == ["gate first", "second"]
    assert "vrprm_joined_requests_total 1.0" in metrics
    assert "vrprm_abandoned_requests_total 0.0" in metrics


@asynchronous
async def test_a_request_after_the_grace_begins_anew(short_grace):
    reward = ScriptedReward()
    async with serving(reward, max_running=1, score_seconds=1.0) as client:
        first, second = post(client, "gate first"), post(client, "second")
        await asyncio.gather(first, second)
        await until(lambda: not client.service.admission._turns)
        again = post(client, "second")
        reward.opened.set()
        assert (await again).status_code == 200
    assert reward.seen == ["gate first", "second"]


@asynchronous
async def test_bytes_are_held_as_long_as_the_work_of_a_client_that_is_gone():
    reward = ScriptedReward()
    async with serving(reward, max_held_bytes=100, score_seconds=1.0) as client:
        assert (await post(client, "gate")).status_code == 504
        assert (await post(client, "more")).status_code == 503
        reward.opened.set()
        await until(lambda: not client.service.admission._jobs)
        assert (await post(client, "more")).status_code == 200
