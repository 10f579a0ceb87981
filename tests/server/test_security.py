import logging

import pytest

from tests.server.doubles import ScriptedReward, asynchronous, item, query, serving
from vrprm_reward.server.settings import ServerSettings, is_loopback

TOKEN, OTHER = "a-good-token-1", "a-good-token-2"


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("token", [TOKEN, OTHER])
@asynchronous
async def test_every_token_opens_every_route(token):
    async with serving(ScriptedReward(), tokens=(TOKEN, OTHER)) as client:
        client.headers.update(bearer(token))
        for path in ("/health", "/ready", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post("/v1/score", json={"rollouts": []})).status_code == 200
        assert (await client.post("/get_reward", json=query())).status_code == 200


@pytest.mark.parametrize("path", ["/ready", "/metrics", "/openapi.json", "/docs", "/nothing", "/"])
@asynchronous
async def test_without_a_token_only_health_answers(path):
    reward = ScriptedReward()
    async with serving(reward, tokens=(TOKEN,)) as client:
        assert (await client.get("/health")).status_code == 200
        refused = await client.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        for route, body in (("/v1/score", {"rollouts": [item()]}), ("/get_reward", query())):
            assert (await client.post(route, json=body)).status_code == 401
    assert reward.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Bearer {TOKEN.upper()}")],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", TOKEN)],
        [("Authorization", f"Bearer {TOKEN}, Bearer {TOKEN}")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
        [("Authorization", "Bearer \xff\xfe")],
        [("X-Api-Key", TOKEN)],
        [("Cookie", f"token={TOKEN}")],
    ],
)
@asynchronous
async def test_nothing_but_the_exact_token_opens(headers):
    async with serving(ScriptedReward(), tokens=(TOKEN,)) as client:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        assert (await client.get("/ready", headers=raw)).status_code == 401


@asynchronous
async def test_the_token_may_stand_in_the_url_of_get_reward_only():
    async with serving(ScriptedReward(), tokens=(TOKEN,)) as client:
        assert (await client.post(f"/get_reward?token={TOKEN}", json=query())).status_code == 200
        for wrong in (
            f"/get_reward?token={TOKEN}x",
            f"/get_reward?token={TOKEN}&token={TOKEN}",
            f"/get_reward?Token={TOKEN}",
            f"/get_reward?{'a=1&' * 20}token={TOKEN}",
        ):
            assert (await client.post(wrong, json=query())).status_code == 401
        body = {"rollouts": [item()]}
        assert (await client.post(f"/v1/score?token={TOKEN}", json=body)).status_code == 401
        assert (await client.get(f"/metrics?token={TOKEN}")).status_code == 401


@asynchronous
async def test_a_token_with_a_plus_may_stand_in_the_url_as_it_is_or_quoted():
    async with serving(ScriptedReward(), tokens=("abcd+efg/hij=",)) as client:
        for written in ("abcd+efg/hij=", "abcd%2Befg%2Fhij%3D"):
            answer = await client.post(f"/get_reward?token={written}", json=query())
            assert answer.status_code == 200


@asynchronous
async def test_logs_hold_paths_and_outcomes_and_no_token(caplog):
    caplog.set_level(logging.DEBUG, "vrprm_reward")
    async with serving(ScriptedReward(), tokens=(TOKEN,)) as client:
        await client.post(f"/get_reward?token={TOKEN}", json=query())
        await client.post("/v1/score", json={"rollouts": [item("raise")]}, headers=bearer())
        await client.post(f"/get_reward?token={TOKEN}wrong", json=query())
    assert TOKEN not in caplog.text
    assert "POST /get_reward 200" in caplog.text
    assert "POST /get_reward 401" in caplog.text


@asynchronous
async def test_a_path_cannot_forge_a_line_of_the_log(caplog):
    caplog.set_level(logging.DEBUG, "vrprm_reward")
    async with serving(ScriptedReward()) as client:
        await client.get("/a%0A2026-01-01 ERROR forged")
    assert not any(line.startswith("2026-01-01") for line in caplog.text.splitlines())


@asynchronous
async def test_a_crash_of_the_server_itself_shows_nothing_outside(monkeypatch, caplog):
    async with serving(ScriptedReward()) as client:

        def crash(*_):
            raise RuntimeError("secret /secret/place")

        monkeypatch.setattr(client.service, "_parse_score", crash)
        answer = await client.post("/v1/score", json={"rollouts": []})
        assert (await client.get("/health")).status_code == 200
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "tökentöken", "line\nbreak1"])
def test_a_token_that_is_easily_guessed_or_mistyped_is_refused(token):
    with pytest.raises(ValueError, match="openssl rand"):
        ServerSettings(tokens=(token,))


def test_tokens_do_not_show_in_the_settings():
    assert TOKEN not in repr(ServerSettings(tokens=(TOKEN,)))


def test_only_loopback_addresses_count_as_this_machine():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "", "10.0.0.1", "reward", "localhost.example.com"):
        assert not is_loopback(host)


@asynchronous
async def test_answers_are_not_to_be_cached_or_sniffed():
    async with serving(ScriptedReward()) as client:
        for answer in (await client.get("/health"), await client.get("/nothing")):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
