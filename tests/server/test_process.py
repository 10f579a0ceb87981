"""A real server in a process of its own: sockets, signals, cut connections, the end."""

import asyncio
import errno
import json
import signal
import socket
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from tests.server.doubles import asynchronous, item, query, served_process, until
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.types import Problem, Rollout

TOKEN = "a-good-token"


def raw(port: int, request: bytes) -> bytes:
    """All that comes back for the bytes of a request.

    A server that hangs up on bytes it has not read resets the connection, which may overtake its
    answer and even our sending.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                answer += data
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
    return answer


def post_bytes(body: bytes, *, length: int | None = None, more: str = "") -> bytes:
    return (
        f"POST /v1/score HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


async def metric(client: httpx2.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next((float(x.split()[1]) for x in lines if x.startswith(f"{name} ")), 0.0)


def rollouts(*responses: str) -> list[Rollout]:
    from tests.server.doubles import picture

    problem = Problem(question="How many?", images=(picture(),))
    return [Rollout(problem=problem, response=response) for response in responses]


@asynchronous
async def test_sigterm_in_the_middle_loses_nothing_that_was_let_in():
    with served_process(max_running=4) as server:
        reward = RemoteProcessReward(server.url, chunk=2)
        texts = [f"sleep 0.3 {n}" for n in range(16)]
        async with httpx2.AsyncClient(base_url=server.url) as client:
            scoring = asyncio.create_task(reward.ascore(rollouts(*texts)))
            rewarding = asyncio.create_task(client.post("/get_reward", json=query("sleep 0.3 r")))
            while await metric(client, 'vrprm_queue_requests{route="score"}') < 8:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            while (await client.get("/ready")).json()["status"] != "draining":
                await asyncio.sleep(0.01)
            refused = await client.post("/v1/score", json={"rollouts": [item("new")]})
            health = await client.get("/health")
            scores, rewarded = await asyncio.gather(scoring, rewarding)
        assert [score.steps[0].text for score in scores] == texts
        assert rewarded.json()["extra_logs"]["vrprm_unscored"] == [0.0]
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert health.status_code == 200
        assert await asyncio.to_thread(server.process.wait, 10) == 0
    assert "Traceback" not in server.log


@asynchronous
async def test_sigterm_while_nothing_happens_ends_with_status_0_and_a_free_port():
    with served_process() as server:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            await client.get("/health")
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 10) == 0
    assert "SIGTERM: finishing what was let in" in server.log


@asynchronous
async def test_sigterm_while_the_model_loads_ends_with_status_0_and_does_not_wait_for_it():
    with served_process(loading=True) as server:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/ready")).json() == {"status": "loading"}
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 15) == 0
    assert "Traceback" not in server.log


@asynchronous
async def test_work_that_outlasts_the_limit_is_given_up_with_status_1():
    with served_process(drain_seconds=0.2) as server:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            body = {"rollouts": [item("gate")]}
            asked = asyncio.create_task(client.post("/v1/score", json=body))
            while await metric(client, "vrprm_running_rollouts") < 1:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            assert (await asked).status_code == 503
        assert await asyncio.to_thread(server.process.wait, 10) == 1


@asynchronous
async def test_a_second_signal_ends_at_once():
    with served_process() as server:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            body = {"rollouts": [item("gate")]}
            asked = asyncio.create_task(client.post("/v1/score", json=body))
            while await metric(client, "vrprm_running_rollouts") < 1:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGINT)
            await until(lambda: "SIGINT" in "".join(server.lines))
            server.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(server.process.wait, 10) == 1
            await asyncio.gather(asked, return_exceptions=True)


@asynchronous
async def test_a_client_that_is_cut_off_and_tries_again_is_joined():
    with served_process() as server:
        body = json.dumps({"rollouts": [item("sleep 1.0")]}).encode()
        headers = {"Content-Type": "application/json"}
        async with httpx2.AsyncClient(base_url=server.url) as client:
            with pytest.raises(httpx2.ReadTimeout):
                await client.post("/v1/score", content=body, headers=headers, timeout=0.3)
            answer = await client.post("/v1/score", content=body, headers=headers)
            assert answer.json()["scores"][0]["status"] == "scored"
            assert await metric(client, "vrprm_joined_requests_total") == 1
            assert await metric(client, 'vrprm_rollouts_total{status="scored"}') == 1
            assert await metric(client, 'vrprm_queue_requests{route="score"}') == 0


@asynchronous
async def test_cut_and_malformed_requests_leave_the_server_well():
    with served_process(tokens=[TOKEN], body_seconds=0.3) as server:
        auth = f"Authorization: Bearer {TOKEN}\r\n"
        whole = json.dumps({"rollouts": [item()]}).encode()
        hostile = [
            b"",
            b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: s\r\n\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: s\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: s\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: s\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: s\r\nX\x00: y\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer \x01\r\n\r\n",
            post_bytes(whole[: len(whole) // 2], length=len(whole), more=auth),
            post_bytes(b"", length=10, more=auth),
            post_bytes(whole, length=-1, more=auth),
            post_bytes(whole, length=10**30, more=auth),
            post_bytes(whole, more=auth + "Content-Length: 3\r\n"),
            post_bytes(whole, more=auth + "Transfer-Encoding: chunked\r\n"),
            post_bytes(whole, more="Transfer-Encoding: chunked, identity\r\n"),
            b"POST /v1/score HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/score HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: s\r\n\r\n",
            b"CONNECT evil:443 HTTP/1.1\r\nHost: s\r\n\r\n",
            b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: s\r\n\r\n",
            b"GET /ready HTTP/1.1\r\nHost: s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
        for request in hostile:
            answer = await asyncio.to_thread(raw, server.port, request)
            assert b" 500 " not in answer.partition(b"\r\n")[0], request[:80]
            assert b"Traceback" not in answer
            assert TOKEN.encode() not in answer
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(base_url=server.url, headers=headers) as client:
            answer = await client.post(
                "/v1/score", content=whole, headers={"Content-Type": "application/json"}
            )
            assert answer.json()["scores"][0]["status"] == "scored"
            assert await metric(client, 'vrprm_queue_requests{route="score"}') == 0
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 10) == 0
    assert "Traceback" not in server.log
    assert TOKEN not in server.log


@asynchronous
async def test_a_token_in_the_url_stays_out_of_every_log():
    with served_process(tokens=[TOKEN]) as server:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            answer = await client.post(f"/get_reward?token={TOKEN}", json=query())
            assert answer.status_code == 200
            await client.post(f"/get_reward?token={TOKEN}x", json=query())
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.process.wait, 10)
    assert "POST /get_reward 200" in server.log
    assert TOKEN not in server.log


@asynchronous
async def test_health_answers_while_the_queue_is_full():
    with served_process(queue=3, reward_queue=3) as server:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=server.url, limits=limits) as client:
            asked = [
                asyncio.create_task(
                    client.post("/v1/score", json={"rollouts": [item(f"gate {n}")]})
                )
                for n in range(12)
            ] + [
                asyncio.create_task(client.post("/get_reward", json=query(f"gate {n}")))
                for n in range(12)
            ]
            while await metric(client, "vrprm_lobby_requests") < 9:
                await asyncio.sleep(0.01)
            assert (await client.get("/health", timeout=5)).json() == {"status": "alive"}
            await until(lambda: sum(task.done() for task in asked) == 9)
            assert {task.result().status_code for task in asked if task.done()} == {503}
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


def test_a_server_open_to_the_network_without_a_token_says_so_loudly():
    with served_process(host="0.0.0.0") as server:
        pass
    assert "ANYONE WHO CAN REACH" in server.log
    with served_process(host="0.0.0.0", tokens=[TOKEN]) as server:
        pass
    assert "ANYONE" not in server.log


class TestTheCommand:
    """`vrprm-reward serve`, up to where the server would begin."""

    @pytest.fixture
    def started(self, monkeypatch):
        found = {}

        def load(name, **settings):
            found.update(name=name, **settings)
            return "the reward"

        def run_server(reward, settings, **place):
            found.update(reward=reward, server=settings, place=place)
            return 0

        monkeypatch.setattr("vrprm_reward.commands.serve.load_process_reward", load)
        monkeypatch.setattr("vrprm_reward.server.run.run_server", run_server)
        monkeypatch.delenv("VRPRM_TOKEN", raising=False)
        return found

    def serve(self, *arguments, **environment):
        import typer

        from vrprm_reward.commands.serve import serve

        app = typer.Typer()
        app.command()(serve)
        runner = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200", **environment})
        return runner.invoke(app, list(arguments))

    def test_the_defaults_are_those_of_the_settings(self, started):
        from vrprm_reward.images import ImageSettings
        from vrprm_reward.server.settings import ServerSettings

        assert self.serve().exit_code == 0
        assert started["name"] == "demo"
        images = ImageSettings(allow_paths=False, allowed_folders=())
        assert started["server"] == ServerSettings(images=images)
        assert started["images"] == images
        assert started["place"] == {"host": "127.0.0.1", "port": 8000, "log_level": "info"}

    def test_every_option_arrives(self, started, tmp_path):
        (tmp_path / "tokens").write_text("token-of-alice\n\ntoken-of-bob\n")
        result = self.serve(
            *"--model x/y --profile p.toml --unscored-reward -0.5 --queue 3".split(),
            *"--reward-queue 4".split(),
            *"--max-body-mb 2 --max-batch 5 --max-images 6 --max-running 7 --port 0".split(),
            *"--allow-url-host Images.example --drain-seconds 9 --score-seconds 8".split(),
            *("--token-file", str(tmp_path / "tokens"), "--allow-folder", str(tmp_path)),
            *"--host 0.0.0.0 --split numbered --part answer --keep-scores 11".split(),
            VRPRM_TOKEN="token-of-carol",
        )
        assert result.exit_code == 0, result.output
        settings = started["server"]
        tokens = [token.get_secret_value() for token in settings.tokens]
        assert tokens == ["token-of-carol", "token-of-alice", "token-of-bob"]
        assert (settings.queue, settings.reward_queue, settings.max_batch) == (3, 4, 5)
        assert (settings.max_body_bytes, settings.max_running) == (2 * 2**20, 7)
        assert (settings.unscored_reward, settings.drain_seconds) == (-0.5, 9.0)
        assert settings.score_seconds == 8.0
        assert settings.images.allowed_folders == (tmp_path,)
        assert settings.images.url_hosts == ("images.example",)
        assert settings.images.max_images == 6
        assert started["images"] is settings.images
        assert (started["steps"].rule, started["steps"].part) == ("numbered", "answer")
        assert started["keep_scores"] == 11

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--allow-folder", "/no/such/folder"], "is not a folder"),
            (["--allow-url-host", "http://a/b"], "--allow-url-host"),
            (["--token-file", "/no/such/file"], "cannot be read"),
            (["--token", "short"], "--token or --token-file: Value error, a token has at least 8"),
            (["--unscored-reward", "nan"], "--unscored-reward"),
            (["--drain-seconds", "-1"], "--drain-seconds"),
        ],
    )
    def test_a_wrong_option_is_one_clear_line(self, started, arguments, says):
        result = self.serve(*arguments)
        assert result.exit_code == 2
        assert says in result.output
        assert "short" not in result.output.replace("--token short", "")
        assert "server" not in started

    def test_an_empty_token_does_not_open_the_server(self, started):
        assert self.serve(VRPRM_TOKEN=" ").exit_code == 2
        assert "server" not in started

    def test_an_empty_token_file_does_not_open_the_server(self, started, tmp_path):
        Path(tmp_path / "tokens").write_text("\n")
        assert self.serve("--token-file", str(tmp_path / "tokens")).exit_code == 2
        assert "server" not in started


def test_an_address_that_is_taken_is_one_clear_error():
    from tests.server.doubles import ScriptedReward
    from vrprm_reward.server.run import run_server
    from vrprm_reward.server.settings import ServerSettings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="cannot be bound"):
            run_server(
                ScriptedReward(), ServerSettings(), host="127.0.0.1", port=port, log_level="error"
            )
