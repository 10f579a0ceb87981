"""The same scores through the server and the client as in this process, by a real checkpoint."""

import asyncio
import io

import httpx2
import pytest
from PIL import Image

from tests.server.doubles import data_url, item
from vrprm_reward import Rollout, load_process_reward, load_profile
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.images import ImageSettings
from vrprm_reward.server.app import create_app
from vrprm_reward.server.settings import ServerSettings


@pytest.fixture(scope="module")
def reward(random_qwen3_vl):
    demo = load_profile("demo")
    # Random weights do not end their thinking.
    short = demo.model_copy(update={"think": demo.think.model_copy(update={"max_tokens": 8})})
    loaded = load_process_reward(
        random_qwen3_vl,
        profile=short,
        images=ImageSettings(allow_paths=False),
        local=LocalOptions(device="cpu", dtype="float32"),
    )
    yield loaded
    loaded.close()


def test_scores_through_the_server_are_those_of_the_model(reward, world_rollouts):
    some = world_rollouts[1:4]

    async def through_the_server() -> list:
        app = create_app(reward, ServerSettings(unscored_reward=0.0))
        remote = RemoteProcessReward("http://server", chunk=2, thinking=True)
        async with app.router.lifespan_context(app):
            pool = await remote._pool()
            pool.client._transport = httpx2.ASGITransport(app=app)
            pool.client._mounts = {}
            scores = await remote.ascore([*some, empty])
            ready = await pool.client.get("/ready")
            await remote.aclose()
        assert ready.json() == {"status": "ready"}
        return scores

    empty = Rollout(problem=some[0].problem, response=" ")
    there = asyncio.run(asyncio.wait_for(through_the_server(), 120))
    here = reward.score([*some, empty])
    for one, other in zip(there, here, strict=True):
        assert (one.status, one.steps, one.reason) == (other.status, other.steps, other.reason)
        assert one.p_correct == pytest.approx(other.p_correct, abs=1e-4)
        assert one.thinking == other.thinking
    assert there[-1].reason == "response_empty"


def test_an_image_whose_pixels_are_corrupt_unscores_its_rollout_and_no_other(reward):
    file = io.BytesIO()
    Image.effect_noise((96, 64), 50).save(file, "PNG")
    whole = file.getvalue()
    corrupt = whole[: len(whole) // 2]

    async def ask() -> dict:
        app = create_app(reward)
        transport = httpx2.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://server") as client,
        ):
            items = [item(images=[data_url(data)]) for data in (whole, corrupt, whole)]
            return (await client.post("/v1/score", json={"rollouts": items})).json()

    scores = asyncio.run(asyncio.wait_for(ask(), 120))["scores"]
    assert [score["reason"] for score in scores] == [None, "image_format", None]
    assert [score["status"] for score in scores] == ["scored", "unscored_ours", "scored"]
