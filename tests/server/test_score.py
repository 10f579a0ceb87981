import asyncio
import json

import pytest

from tests.server.doubles import (
    PICTURE,
    ScriptedReward,
    asynchronous,
    data_url,
    item,
    p_of,
    picture,
    serving,
)
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.encoded import encoded_image


@asynchronous
async def test_scores_come_back_in_order_with_their_ids_and_spans():
    async with serving(ScriptedReward()) as client:
        rollouts = [item("A b.\n\nLonger.", id="x"), item("Three.", id=7), item("")]
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    assert answer.status_code == 200
    first, second, third = answer.json()["scores"]
    assert (first["id"], second["id"], third["id"]) == ("x", 7, None)
    assert first["status"] == "scored"
    assert first["p_correct"] == [p_of("A b."), p_of("Longer.")]
    assert first["steps"] == [{"start": 0, "end": 4}, {"start": 6, "end": 13}]
    assert first["usage"] == {
        "prompt_tokens": 10,
        "generated_tokens": 2,
        "requests": 3,
        "rounds": 2,
    }
    assert (third["status"], third["p_correct"]) == ("unscored_response", None)
    assert (third["reason"], third["detail"]) == ("response_empty", "There are no steps.")


@asynchronous
async def test_thinking_is_sent_only_when_asked_for():
    async with serving(ScriptedReward()) as client:
        without = await client.post("/v1/score", json={"rollouts": [item()]})
        with_it = await client.post("/v1/score", json={"rollouts": [item()], "thinking": True})
    assert without.json()["scores"][0]["thinking"] is None
    assert with_it.json()["scores"][0]["thinking"] == "I looked."


@asynchronous
async def test_an_empty_batch_is_answered_with_no_scores():
    async with serving(ScriptedReward()) as client:
        answer = await client.post("/v1/score", json={"rollouts": []})
    assert (answer.status_code, answer.json()) == (200, {"scores": []})


@pytest.mark.parametrize("wrong", [True, 1.5, "x" * 201, 2**63, ["a"]])
@asynchronous
async def test_a_wrong_id_is_one_error_that_says_what_an_id_is(wrong):
    async with serving(ScriptedReward()) as client:
        answer = await client.post("/v1/score", json={"rollouts": [item("a b", id=wrong)]})
    assert answer.status_code == 422
    (error,) = answer.json()["error"]["items"]
    assert (error["index"], error["field"]) == (0, "id")
    assert "at most 200 characters" in error["message"]


@pytest.mark.parametrize("steps", [["a b", "d"], [{"start": 0, "end": 3}, {"start": 5, "end": 6}]])
@asynchronous
async def test_ready_made_steps_may_be_texts_or_spans(steps):
    reward = ScriptedReward()
    async with serving(reward) as client:
        answer = await client.post("/v1/score", json={"rollouts": [item("a b, d", steps=steps)]})
    assert answer.json()["scores"][0]["steps"] == [{"start": 0, "end": 3}, {"start": 5, "end": 6}]
    assert [step.text for step in reward.calls[0][0].steps] == ["a b", "d"]


@asynchronous
async def test_a_request_with_many_mistakes_names_the_first_few():
    rollouts = [item("a b", images=[1] * 50) for _ in range(400)]
    async with serving(ScriptedReward()) as client:
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    assert answer.status_code == 422
    assert [e["field"] for e in answer.json()["error"]["items"]] == [
        f"images[{number}]" for number in range(16)
    ]


@asynchronous
async def test_the_reward_is_handed_bytes_and_never_a_path(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("blue"))
    images = ImageSettings(allow_paths=True, allowed_folders=(tmp_path,))
    reward = ScriptedReward()
    async with serving(reward, images=images) as client:
        path = str(tmp_path / "a.png")
        rollouts = [item(images=[path, PICTURE, f"file://{path}"])]
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    assert answer.status_code == 200
    assert reward.calls[0][0].problem.images == (picture("blue"), picture(), picture("blue"))


@asynchronous
async def test_a_missing_file_unscores_its_rollout_and_no_other(tmp_path):
    images = ImageSettings(allow_paths=True, allowed_folders=(tmp_path,))
    async with serving(ScriptedReward(), images=images) as client:
        rollouts = [item("Good."), item(images=[str(tmp_path / "none.png")]), item("Too.")]
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    scores = answer.json()["scores"]
    assert [s["status"] for s in scores] == ["scored", "unscored_ours", "scored"]
    assert scores[1]["reason"] == "image_missing"
    assert str(tmp_path) not in answer.text


@asynchronous
async def test_a_wrong_image_is_named_by_its_rollout_and_nothing_is_scored():
    reward = ScriptedReward()
    async with serving(reward) as client:
        small = data_url(picture(size=(1, 1)))
        rollouts = [item(), item(images=[PICTURE, small]), item(images=["/etc/passwd"])]
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "image_limit"
    found = [(each["index"], each["field"], each["code"]) for each in error["items"]]
    assert found == [(1, "images", "image_limit"), (2, "images", "image_source")]
    assert reward.calls == []


@asynchronous
async def test_wrong_fields_are_named_with_their_place():
    async with serving(ScriptedReward()) as client:
        rollouts = [item(), {**item(), "question": 3, "extra": 1}, {"images": []}]
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    assert answer.status_code == 422
    found = {(e["index"], e["field"]): e["message"] for e in answer.json()["error"]["items"]}
    assert found == {
        (1, "question"): "not a string",
        (1, "extra"): "unknown: check its spelling, or leave it out",
        (2, "question"): "missing",
        (2, "images"): "empty: give at least one",
        (2, "response"): "missing",
    }


@pytest.mark.parametrize("trouble", ["raise", "short"])
@asynchronous
async def test_a_reward_that_breaks_its_word_gives_unscored_rollouts_and_no_5xx(trouble, caplog):
    async with serving(ScriptedReward()) as client:
        answer = await client.post("/v1/score", json={"rollouts": [item(trouble)]})
        after = await client.post("/v1/score", json={"rollouts": [item("Fine.")]})
    (score,) = answer.json()["scores"]
    assert (score["status"], score["reason"]) == ("unscored_ours", "unexpected")
    assert "secret" not in answer.text
    assert after.json()["scores"][0]["status"] == "scored"
    assert "failed" in caplog.text


@asynchronous
async def test_details_of_our_own_failures_stay_in_the_log(caplog):
    async with serving(ScriptedReward()) as client:
        answer = await client.post("/v1/score", json={"rollouts": [item("fail")]})
    (score,) = answer.json()["scores"]
    assert (score["reason"], "secret" in answer.text) == ("engine", False)
    assert "see /secret/place for more" in caplog.text


@asynchronous
async def test_a_batch_and_a_body_over_the_limit_are_413():
    async with serving(ScriptedReward(), max_batch=2, max_body_bytes=2000) as client:
        many = await client.post("/v1/score", json={"rollouts": [item()] * 3})
        large = await client.post("/v1/score", json={"rollouts": [item("x" * 2000)]})

        async def pieces():
            for _ in range(10):
                yield b" " * 1000

        headers = {"Content-Type": "application/json"}
        unannounced = await client.post("/v1/score", content=pieces(), headers=headers)
    assert [a.status_code for a in (many, large, unannounced)] == [413, 413, 413]
    assert many.json()["error"]["code"] == "batch_size"
    assert large.json()["error"]["code"] == unannounced.json()["error"]["code"] == "body_size"


@asynchronous
async def test_the_openapi_description_has_every_route_body_and_error():
    async with serving(ScriptedReward(), tokens=("a-good-token",)) as client:
        headers = {"Authorization": "Bearer a-good-token"}
        description = (await client.get("/openapi.json", headers=headers)).json()
    assert set(description["paths"]) == {
        "/v1/score",
        "/get_reward",
        "/health",
        "/ready",
        "/metrics",
    }
    text = json.dumps(description)
    for name in ("ScoreRequest", "RolloutItem", "RewardRequest", "ErrorBody"):
        assert name in description["components"]["schemas"]
        assert f"#/components/schemas/{name}" in text
    assert description["paths"]["/v1/score"]["post"]["security"] == [{"bearer": []}]
    assert description["paths"]["/health"]["get"]["security"] == []


@asynchronous
async def test_a_file_that_fails_in_an_unknown_way_unscores_its_rollout_and_no_other(
    tmp_path, monkeypatch
):
    def encoded(reference, settings):
        if reference.startswith("/"):
            raise ZeroDivisionError("a bug at /secret/place")
        return encoded_image(reference, settings)

    monkeypatch.setattr("vrprm_reward.server.drafts.encoded_image", encoded)
    images = ImageSettings(allow_paths=True, allowed_folders=(tmp_path,))
    async with serving(ScriptedReward(), images=images) as client:
        rollouts = [item("Good."), item(images=[str(tmp_path / "a.png")]), item("Too.")]
        answer = await client.post("/v1/score", json={"rollouts": rollouts})
    assert [s["reason"] for s in answer.json()["scores"]] == [None, "image", None]
    assert "secret" not in answer.text


@asynchronous
async def test_a_reward_that_is_cancelled_from_within_is_a_failure_and_no_draining():
    class Cancelled(ScriptedReward):
        async def ascore(self, rollouts):
            raise asyncio.CancelledError

    async with serving(Cancelled()) as client:
        answer = await client.post("/v1/score", json={"rollouts": [item()]})
    assert answer.status_code == 200
    assert answer.json()["scores"][0]["reason"] == "unexpected"
