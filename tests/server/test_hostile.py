import json

import pytest

from tests.server.doubles import ScriptedReward, asynchronous, item, picture, serving
from tests.server.hostile import ALLOWED_HOST, corpus
from vrprm_reward.images import ImageSettings

TOKEN = "a-good-token"
LEAKS = (
    "Traceback",
    'File "',
    "vrprm_reward",
    "site-packages",
    "pydantic",
    "PIL",
    "Pillow",
    "httpx",
    "starlette",
    "RuntimeError",
    "Errno",
    "object at 0x",
    "127.0.0.1",
    "root:",
)


@pytest.fixture
def places(tmp_path):
    folder, outside = tmp_path / "allowed-folder", tmp_path / "secret-folder"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret.png").write_bytes(picture())
    (folder / "text.txt").write_text("not an image")
    return folder, outside / "secret.png"


@asynchronous
async def test_no_hostile_request_gets_more_than_a_short_clear_refusal(places, caplog):
    folder, secret = places
    images = ImageSettings(
        allow_paths=True,
        allowed_folders=(folder,),
        allow_urls=True,
        url_hosts=(ALLOWED_HOST,),
        url_timeout=2,
    )
    cases = corpus(folder, secret)
    assert len(cases) >= 60
    assert len({case.name for case in cases}) == len(cases)
    reward = ScriptedReward()
    wrong = []
    async with serving(reward, images=images, tokens=(TOKEN,), max_body_bytes=2**21) as client:
        for case in cases:
            answer = await client.request(
                case.method,
                case.route,
                content=case.body if isinstance(case.body, bytes) else json.dumps(case.body),
                headers=[
                    (name.encode(), value.encode("latin-1"))
                    for name, value in {
                        "Authorization": f"Bearer {TOKEN}",
                        "Content-Type": "application/json",
                        **case.headers,
                    }.items()
                ],
            )
            found = answer.json()
            code = found["error"]["code"] if "error" in found else found["scores"][0]["reason"]
            if answer.status_code != case.status or code not in (case.code, case.code or code):
                wrong.append((case.name, answer.status_code, answer.text[:300]))
            leaks = [leak for leak in (*LEAKS, str(secret.parent)) if leak in answer.text]
            if leaks or len(answer.content) > 20_000:
                wrong.append((case.name, leaks, answer.text[:300]))
        scored = await client.post(
            "/v1/score",
            json={"rollouts": [item("Still here.")]},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
    assert wrong == []
    assert scored.json()["scores"][0]["status"] == "scored"
    assert "failed unexpectedly" not in caplog.text


@asynchronous
async def test_by_default_neither_paths_nor_urls_are_looked_at(places, monkeypatch):
    async def refuse(*_, **__):
        raise AssertionError("something was looked at")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("os.open", refuse)
    _, secret = places
    async with serving(ScriptedReward()) as client:
        for reference in (str(secret), f"file://{secret}", "http://images.example/a.png"):
            body = {"rollouts": [item(images=[reference])]}
            answer = await client.post("/v1/score", json=body)
            assert answer.status_code == 422
            assert answer.json()["error"]["items"][0]["code"] == "image_source"


@asynchronous
async def test_whether_a_file_outside_exists_cannot_be_found_out(places):
    folder, secret = places
    images = ImageSettings(allow_paths=True, allowed_folders=(folder,))
    async with serving(ScriptedReward(), images=images) as client:
        answers = [
            await client.post("/v1/score", json={"rollouts": [item(images=[path])]})
            for path in (str(secret), str(secret.with_name("none.png")))
        ]
    assert answers[0].status_code == 422
    assert answers[0].content == answers[1].content
