import asyncio
import multiprocessing
import os
import pickle
from dataclasses import replace

import pytest
from PIL import Image

from tests.client.servers import (
    TOKEN,
    Scripted,
    connected,
    reply,
    rollout,
)
from tests.server.doubles import ScriptedReward, asynchronous, p_of, picture, served_process
from vrprm_reward.client import RemoteProcessReward, ServerRefusedError
from vrprm_reward.errors import InputError
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.encoded import encoded_image
from vrprm_reward.server.settings import ServerSettings
from vrprm_reward.steps import locate_steps
from vrprm_reward.types import ProcessScore, Usage


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
async def test_rollouts_may_come_from_a_generator_and_what_is_none_is_named():
    async with connected(ScriptedReward()) as remote:
        scores = await remote.ascore(rollout(text) for text in ("A.", "B."))
        with pytest.raises(InputError, match=r"rollouts\[0\] is of type str"):
            await remote.ascore(["A."])
    assert [score.p_correct for score in scores] == [(p_of("A."),), (p_of("B."),)]


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
async def test_an_image_that_fails_in_an_unknown_way_unscores_its_rollout_only(monkeypatch):
    def encoded(image, settings):
        if image == b"bad":
            raise ZeroDivisionError("a bug")
        return encoded_image(image, settings)

    monkeypatch.setattr("vrprm_reward.client_call.encoded_image", encoded)
    async with connected(ScriptedReward()) as remote:
        scores = await remote.ascore([rollout("a"), rollout("b", b"bad"), rollout("c")])
    assert [score.reason for score in scores] == [None, "unexpected", None]


@asynchronous
async def test_half_a_surrogate_pair_is_the_responses_fault_as_where_the_model_is():
    reward = ScriptedReward()
    async with connected(reward) as remote:
        scores = await remote.ascore([rollout("a"), rollout("One \ud83d."), rollout("c")])
    assert [score.reason for score in scores] == [None, "response_not_text", None]
    assert scores[1].status == "unscored_response"
    assert reward.seen == ["a", "c"]


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


@asynchronous
async def test_what_a_newer_server_says_more_is_passed_over():
    async with Scripted(reply()).running() as url:
        remote = RemoteProcessReward(url)
        (score,) = await remote.ascore([rollout("abc")])
        await remote.aclose()
    assert (score.p_correct, score.usage) == ((0.25,), Usage(prompt_tokens=3))


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


@pytest.mark.parametrize("given", ["a-good-token\n", "  a-good-token\r\n", "", " \n", None])
@asynchronous
async def test_a_token_is_sent_without_what_stands_around_it_and_a_blank_one_is_none(
    given, monkeypatch
):
    monkeypatch.setenv("VRPRM_TOKEN", given or "\n")
    stripped = TOKEN if (given or "").strip() else None
    for remote in (RemoteProcessReward("http://r"), RemoteProcessReward("http://r", token=given)):
        assert remote._settings.token == stripped


@pytest.mark.parametrize("wrong", ["secret\nsecret", "schlüssel-secret", "secret\x1bsecret"])
def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(wrong, monkeypatch):
    with pytest.raises(InputError, match="token has characters") as refused:
        RemoteProcessReward("http://r", token=wrong)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("VRPRM_TOKEN", wrong)
    with pytest.raises(InputError, match="variable VRPRM_TOKEN has characters"):
        RemoteProcessReward("http://r")


@asynchronous
async def test_a_request_that_cannot_be_written_is_a_mistake_in_the_settings():
    async with Scripted(reply()).running() as url:
        remote = RemoteProcessReward(url)
        remote._settings = replace(remote._settings, token="secret\n")
        async with asyncio.timeout(5):
            with pytest.raises(ServerRefusedError, match="check token and URL") as refused:
                await remote.ascore([rollout()])
        await remote.aclose()
    assert "secret" not in str(refused.value)
