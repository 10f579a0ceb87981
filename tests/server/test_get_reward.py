import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.doubles import (
    PICTURE,
    ScriptedReward,
    asynchronous,
    data_url,
    label,
    p_of,
    picture,
    query,
    serving,
    until,
)
from vrprm_reward.images import ImageSettings
from vrprm_reward.openrlhf_wire import response_of

PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Why?<|im_end|>\n"
EXPANDED = PROMPT.replace("<|image_pad|>", "<|image_pad|>" * 12)


@asynchronous
async def test_the_reward_is_the_mean_and_the_keys_are_always_the_same():
    async with serving(ScriptedReward(), unscored_reward=-2.5) as client:
        answers = {
            response: (await client.post("/get_reward", json=query(response))).json()
            for response in ("A b.\n\nLonger.", "fail", "")
        }
    good, failed, empty = answers.values()
    p = [p_of("A b."), p_of("Longer.")]
    assert good == {
        "rewards": [pytest.approx(sum(p) / 2)],
        "scores": [pytest.approx(sum(p) / 2)],
        "extra_logs": {
            "vrprm_unscored": [0.0],
            "vrprm_unscored_ours": [0.0],
            "vrprm_mean_p": [pytest.approx(sum(p) / 2)],
            "vrprm_min_p": [min(p)],
            "vrprm_steps": [2.0],
        },
    }
    assert (failed["rewards"], failed["extra_logs"]["vrprm_unscored"]) == ([-2.5], [1.0])
    assert failed["extra_logs"]["vrprm_unscored_ours"] == [1.0]
    assert empty["extra_logs"]["vrprm_unscored_ours"] == [0.0]
    assert good["extra_logs"].keys() == failed["extra_logs"].keys() == empty["extra_logs"].keys()


@asynchronous
async def test_being_unscorable_never_pays():
    async with serving(ScriptedReward(), unscored_reward=0.5) as client:
        ours = (await client.post("/get_reward", json=query("fail"))).json()
        its_own = (await client.post("/get_reward", json=query(""))).json()
    assert ours["rewards"] == [0.5]
    assert its_own["rewards"] == [0.0]


@asynchronous
async def test_an_empty_batch_is_answered_with_empty_lists():
    async with serving(ScriptedReward()) as client:
        body = {"query": [], "prompts": [], "labels": []}
        answer = await client.post("/get_reward", json=body)
    assert answer.status_code == 200
    assert answer.json()["rewards"] == answer.json()["scores"] == []
    assert set(map(len, answer.json()["extra_logs"].values())) == {0}


@asynchronous
async def test_without_an_unscored_reward_the_route_is_off_and_says_so():
    async with serving(ScriptedReward(), unscored_reward=None) as client:
        answer = await client.post("/get_reward", json=query())
    assert answer.status_code == 404
    assert "--unscored-reward" in answer.json()["error"]["message"]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("images", [PICTURE, [PICTURE, PICTURE]])
@asynchronous
async def test_labels_may_be_objects_or_their_json(as_text, images):
    reward = ScriptedReward()
    async with serving(reward) as client:
        body = query()
        value = label(images=images, answer=3, other=None)
        body["labels"] = [json.dumps(value) if as_text else value]
        answer = await client.post("/get_reward", json=body)
    assert answer.status_code == 200
    problem = reward.calls[0][0].problem
    assert (problem.question, problem.reference_answer) == ("How many?", "3")
    assert set(problem.images) == {picture()}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("", "--data.label_key"),
        ("three", "not the JSON"),
        ("[1]", "not an object"),
        (3, "not an object"),
        (None, "not an object"),
        ({"answer": "3"}, "question"),
        (label(question=3), "question"),
        (label(question="\ud800"), "question"),
        ({"question": "How many?"}, "images is missing"),
        (label(images=[3]), "images"),
        (label(answer=[3]), "answer"),
        (label(images=["/etc/passwd"]), "reads no paths"),
        (label(images=["http://10.0.0.1/a.png"]), "fetches no URLs"),
    ],
)
@asynchronous
async def test_a_label_that_no_row_could_use_is_refused(wrong, says):
    reward = ScriptedReward()
    async with serving(reward) as client:
        body = query()
        body["labels"] = [wrong if wrong != label(question="\ud800") else json.dumps(wrong)]
        answer = await client.post("/get_reward", json=body)
    assert answer.status_code == 422
    (found,) = answer.json()["error"]["items"]
    assert says in found["message"]
    assert reward.calls == []


@pytest.mark.parametrize(
    "images", [[], [data_url(picture(size=(1, 1)))], [data_url(b"GIF89a")], ["data:,x"]]
)
@asynchronous
async def test_a_rollout_with_bad_images_of_its_own_is_unscored(images):
    async with serving(ScriptedReward(), unscored_reward=-1.0) as client:
        body = query()
        body["labels"] = [label(images=images)]
        answer = await client.post("/get_reward", json=body)
    assert answer.status_code == 200
    assert answer.json()["rewards"] == [-1.0]


@asynchronous
async def test_images_may_be_paths_under_an_allowed_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("blue"))
    images = ImageSettings(allow_paths=True, allowed_folders=(tmp_path,))
    reward = ScriptedReward()
    async with serving(reward, images=images) as client:
        body = query()
        body["labels"] = [label(images=str(tmp_path / "a.png"))]
        assert (await client.post("/get_reward", json=body)).json()["rewards"] != [-1.0]
    assert reward.calls[0][0].problem.images == (picture("blue"),)


def test_the_response_is_what_follows_the_prompt_with_expanded_image_tokens():
    response = "Step <b><b>one</b></b>.\n\nTwo <|image_pad|><|image_pad|>."
    assert response_of(f"{EXPANDED}{response}<|im_end|>\n", PROMPT) == response


def test_a_begin_of_text_token_before_the_prompt_is_passed_over():
    assert response_of(f"<|begin_of_text|>{EXPANDED}Yes.", PROMPT) == "Yes."
    assert response_of("<s> Q: A", "Q: ") == "A"


def test_closing_tokens_and_only_they_are_taken_off():
    assert response_of("Q: Yes. \n", "Q:") == " Yes. \n"
    assert response_of("Q:Yes.\n<|im_end|>\n<|endoftext|><|endoftext|> ", "Q:") == "Yes.\n"
    assert response_of("Q:a<|im_end|>b", "Q:") == "a<|im_end|>b"


def test_a_query_without_its_prompt_has_no_response():
    assert response_of("Something else", PROMPT) is None
    assert response_of(f"Injected text {PROMPT}Yes.", PROMPT) is None


@given(st.text(), st.integers(1, 5), st.integers(1, 5))
def test_any_response_survives_except_for_what_closes_it(response, first, second):
    prompt = "<img><|image_pad|>\n<|image_pad|> Q?\n"
    expanded = prompt.replace("<|image_pad|>", "<|image_pad|>" * first, 1)
    found = response_of(f"{expanded}.{response}.", prompt)
    assert found == f".{response}."


@pytest.mark.timeout(20)
def test_long_runs_take_no_quadratic_time():
    spaces, tokens = " " * 300_000, "<s>" * 100_000 + "</s>" * 100_000
    assert response_of(f"Q:{spaces}x{tokens}y{spaces}", "Q:") == f"{spaces}x{tokens}y{spaces}"
    assert response_of(f"{tokens}Q:{spaces}x{tokens}{spaces}", "A") is None


@asynchronous
async def test_a_query_without_its_prompt_is_unscored():
    async with serving(ScriptedReward(), unscored_reward=-1.0) as client:
        body = {**query(), "prompts": ["Another prompt"]}
        answer = await client.post("/get_reward", json=body)
    assert answer.json()["rewards"] == [-1.0]


@asynchronous
async def test_lists_of_unequal_length_are_refused():
    async with serving(ScriptedReward()) as client:
        answer = await client.post("/get_reward", json={**query(), "labels": []})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "lengths")


@asynchronous
async def test_beyond_its_queue_it_waits_and_does_not_refuse():
    reward = ScriptedReward()
    async with serving(reward, reward_queue=2) as client:
        bodies = [query(f"gate {n}.") for n in range(6)]
        asked = [asyncio.create_task(client.post("/get_reward", json=body)) for body in bodies]
        await until(lambda: reward.running == 2 and len(client.service.admission._lobby) == 4)
        assert (await client.get("/health")).status_code == 200
        reward.opened.set()
        answers = await asyncio.gather(*asked)
    assert [a.status_code for a in answers] == [200] * 6
    assert sorted(reward.seen) == [f"gate {n}." for n in range(6)]
    assert [a.json()["extra_logs"]["vrprm_unscored"] for a in answers] == [[0.0]] * 6


@asynchronous
async def test_when_its_time_is_over_it_answers_unscored_inside_and_outside_the_queue():
    reward = ScriptedReward()
    async with serving(reward, reward_queue=1, reward_seconds=0.3) as client:
        bodies = [query(f"gate {n}.") for n in range(3)]
        answers = await asyncio.gather(*(client.post("/get_reward", json=b) for b in bodies))
        metrics = (await client.get("/metrics")).text
        reward.opened.set()
    assert [a.status_code for a in answers] == [200] * 3
    assert [a.json()["rewards"] for a in answers] == [[-1.0]] * 3
    assert 'vrprm_unscored_total{reason="server_timeout"} 3.0' in metrics
