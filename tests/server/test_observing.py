import asyncio

import pytest

from tests.judged import judged
from tests.server.doubles import ScriptedReward, asynchronous, item, query, serving, until
from vrprm_reward.errors import CheckpointError
from vrprm_reward.server.app import create_app
from vrprm_reward.types import ProcessScore


async def numbers(client):
    lines = (await client.get("/metrics")).text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


@asynchronous
async def test_metrics_count_requests_rollouts_steps_tokens_images_and_reasons():
    async with serving(ScriptedReward()) as client:
        rollouts = [
            item("A.\n\nB."),
            item("C.", images=item()["images"] * 2),
            item(""),
            item("fail"),
        ]
        await client.post("/v1/score", json={"rollouts": rollouts})
        await client.post("/v1/score", json={"rollouts": 3})
        await client.get("/secret/place")
        found = await numbers(client)
    assert found['vrprm_requests_total{route="/v1/score",status="200"}'] == 1
    assert found['vrprm_requests_total{route="/v1/score",status="422"}'] == 1
    assert found['vrprm_requests_total{route="other",status="404"}'] == 1
    assert found['vrprm_rollouts_total{status="scored"}'] == 2
    assert found['vrprm_unscored_total{reason="response_empty"}'] == 1
    assert found['vrprm_unscored_total{reason="engine"}'] == 1
    assert found["vrprm_steps_total"] == 3
    assert found["vrprm_images_total"] == 5
    assert found['vrprm_tokens_total{kind="prompt"}'] == 20
    assert found['vrprm_tokens_total{kind="generated"}'] == 4
    assert found['vrprm_batch_rollouts_bucket{le="4.0"}'] == 1
    assert found['vrprm_batch_rollouts_bucket{le="2.0"}'] == 0
    assert found['vrprm_request_seconds_count{route="/v1/score"}'] == 2
    assert found["vrprm_scoring_seconds_count"] == 1


@asynchronous
async def test_gauges_show_the_queue_and_fall_back_to_zero():
    reward = ScriptedReward()
    async with serving(reward, max_running=1) as client:
        asked = [
            asyncio.create_task(client.post("/v1/score", json={"rollouts": [item(f"gate {n}")]}))
            for n in range(3)
        ]
        await until(lambda: len(client.service.admission._turns) == 2)
        during = await numbers(client)
        reward.opened.set()
        await asyncio.gather(*asked)
        after = await numbers(client)
    held = 'vrprm_queue_requests{route="score"}'
    assert (during[held], during["vrprm_waiting_rollouts"]) == (3, 2)
    assert during["vrprm_running_rollouts"] == 1
    assert during["vrprm_held_bytes"] > 100
    for name in (held, "vrprm_waiting_rollouts", "vrprm_running_rollouts", "vrprm_held_bytes"):
        assert after[name] == 0


@asynchronous
async def test_a_reward_cannot_flood_the_metrics_with_reasons():
    class Chatty(ScriptedReward):
        async def ascore(self, rollouts):
            return [
                ProcessScore(status="unscored_ours", reason=f"reason_{n} /path" * 9, detail="")
                if n == 0
                else ProcessScore(status="unscored_ours", reason=f"reason_{n}", detail="")
                for n in range(len(rollouts))
            ]

    async with serving(Chatty()) as client:
        answer = await client.post("/v1/score", json={"rollouts": [item()] * 100})
        found = await numbers(client)
    reasons = [name for name in found if name.startswith("vrprm_unscored_total")]
    assert len(reasons) <= 51
    assert found['vrprm_unscored_total{reason="other"}'] > 0
    assert answer.json()["scores"][0]["reason"] == "unexpected"


@asynchronous
async def test_ready_asks_the_model_and_says_when_it_does_not_answer(caplog):
    class Moody(ScriptedReward):
        broken = True

        async def ascore(self, rollouts):
            if self.broken:
                raise RuntimeError("secret")
            return await super().ascore(rollouts)

    reward = Moody()
    async with serving(reward, ready_seconds=60) as client:
        broken = await client.get("/ready")
        reward.broken = False
        mended = await client.get("/ready")
        again = await client.get("/ready")
        assert (await client.get("/health")).status_code == 200
    assert (broken.status_code, broken.json()) == (503, {"status": "not_answering"})
    assert (mended.status_code, mended.json()) == (200, {"status": "ready"})
    assert again.status_code == 200
    assert len(reward.calls) == 1


@asynchronous
async def test_a_scored_rollout_is_proof_enough_for_ready():
    reward = ScriptedReward()
    async with serving(reward) as client:
        await client.post("/v1/score", json={"rollouts": [item("Mine.")]})
        assert (await client.get("/ready")).status_code == 200
    assert reward.seen == ["Mine."]


@asynchronous
async def test_requests_that_come_while_the_model_loads_wait_for_it():
    class Slow(ScriptedReward):
        @property
        def engine(self):
            assert self.opened.wait(20)
            return object()

    reward = Slow()
    app = create_app(reward)
    service = app.state.service
    async with serving(ScriptedReward()) as client:
        # The same client, pointed at an app whose model is not there yet.
        client._transport.app = app
        async with app.router.lifespan_context(app):
            asked = asyncio.create_task(client.post("/v1/score", json={"rollouts": [item()]}))
            await until(lambda: service.admission._running == 1)
            assert (await client.get("/ready")).json() == {"status": "loading"}
            assert reward.calls == []
            reward.opened.set()
            assert (await asked).json()["scores"][0]["status"] == "scored"
            assert (await client.get("/ready")).status_code == 200


@asynchronous
async def test_a_model_that_cannot_be_loaded_is_reported():
    class Broken(ScriptedReward):
        @property
        def engine(self):
            raise CheckpointError("there is no such folder")

    failures = []
    app = create_app(Broken(), on_failure=failures.append)
    async with app.router.lifespan_context(app):
        await until(lambda: failures)
    assert isinstance(failures[0], CheckpointError)


@pytest.mark.parametrize("response", ["", "Kept."])
@asynchronous
async def test_an_answer_that_never_reached_the_model_is_no_proof_for_ready(response):
    class Dead(ScriptedReward):
        async def ascore(self, rollouts):
            if any(rollout.response != response for rollout in rollouts):
                raise RuntimeError("the GPU is gone")
            return [judged(rollout, lambda text: 0.5) for rollout in rollouts]

    async with serving(Dead()) as client:
        before = await client.get("/ready")
        answer = await client.post("/v1/score", json={"rollouts": [item(response)]})
        after = await client.get("/ready")
    assert answer.json()["scores"][0]["status"] != "unscored_ours"
    assert before.json() == after.json() == {"status": "not_answering"}


@asynchronous
async def test_no_canary_is_one_that_the_model_has_kept_the_score_of():
    reward = ScriptedReward()
    async with serving(reward, ready_seconds=0.001) as client:
        for _ in range(2):
            assert (await client.get("/ready")).status_code == 200
            await asyncio.sleep(0.01)
    first, second = (call[0] for call in reward.calls)
    assert first.problem.question != second.problem.question


@asynchronous
async def test_a_rollout_that_was_too_late_counts_once_and_one_of_joined_requests_too():
    reward = ScriptedReward()
    async with serving(reward, reward_seconds=0.2) as client:
        await client.post("/get_reward", json=query("gate late"))
        joined = [
            asyncio.create_task(client.post("/v1/score", json={"rollouts": [item("gate joined")]}))
            for _ in range(3)
        ]
        await until(lambda: reward.running == 2)
        await asyncio.sleep(0.05)
        reward.opened.set()
        await asyncio.gather(*joined)
        await until(lambda: not client.service.admission._jobs)
        found = await numbers(client)
    assert found['vrprm_rollouts_total{status="unscored_ours"}'] == 1
    assert found['vrprm_rollouts_total{status="scored"}'] == 1
    assert found["vrprm_steps_total"] == 2
