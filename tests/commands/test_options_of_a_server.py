import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from tests.commands.scoring import good, goods, plain, records, run, write_rows
from vrprm_reward import client
from vrprm_reward.commands.options import check_reference_use
from vrprm_reward.errors import InputError
from vrprm_reward.process_reward import load_process_reward


class Server(ThreadingHTTPServer):
    """A `vrprm-reward serve` that judges nothing: each response is one step, with p = 0.5."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[dict[str, Any]] = []
        self.pieces = 99

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer({"status": "alive"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if len(self.server.asked) >= self.server.pieces:
            self.close_connection = True
            return
        self.server.asked.append(body)
        self._answer(
            {
                "scores": [
                    {
                        "status": "scored",
                        "p_correct": [0.5],
                        "steps": [{"start": 0, "end": len(item["response"])}],
                        "thinking": "Looked." if body["thinking"] else None,
                    }
                    for item in body["rollouts"]
                ]
            }
        )

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def pictured(folder: Path) -> Path:
    Image.new("RGB", (32, 32), "red").save(folder / "a.png")
    return folder


@pytest.fixture
def nobody() -> str:
    """The URL of a port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_server_is_asked_for_the_thinking(pictured: Path, server: Server) -> None:
    out = pictured / "out.jsonl"
    result = run(
        "score", write_rows(pictured, good()), "-o", str(out), "--thinking", "--model", server.url
    )
    assert result.exit_code == 0, result.stderr
    assert "Looked." in result.stdout
    assert records(out)[0]["thinking"] == "Looked."


def test_a_job_whose_server_died_goes_on_when_it_is_back(
    pictured: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = client.RemoteProcessReward
    patience = 3.0  # with a server that answers too: on a slow machine that takes a while

    def impatient(url: str, **more: Any) -> client.RemoteProcessReward:
        return remote(url, total_timeout=patience, chunk=64, **more)

    monkeypatch.setattr(client, "RemoteProcessReward", impatient)
    rows, out = write_rows(pictured, *goods(192)), pictured / "out.jsonl"
    command = ("score", rows, "-o", str(out), "--model", server.url, "--quiet")
    server.pieces = 1
    result = run(*command)
    assert result.exit_code == 2
    (error, *_) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert f"{server.url} cannot be reached" in error
    assert "the same command goes on from the finished work" in error
    assert not out.exists()
    server.pieces, patience = 99, 60.0
    result = run(*command)
    assert result.exit_code == 0
    assert "Going on from 64 finished pieces" in result.stderr
    assert [record["status"] for record in records(out)] == ["scored"] * 192
    # What was finished is not asked for again. (A request that the first run had given up may be
    # counted late, so the rest is not counted.)
    finished, *rest = ([item["response"] for item in asked["rollouts"]] for asked in server.asked)
    assert len(set(finished)) == 64
    assert not set(finished) & {response for responses in rest for response in responses}


def test_a_server_that_is_not_there_is_said_so_at_once(pictured: Path, nobody: str) -> None:
    out = pictured / "out.jsonl"
    result = run("score", write_rows(pictured, good()), "-o", str(out), "--model", nobody)
    assert result.exit_code == 2
    assert plain(result.stderr).startswith(f"error: no reward server can be reached at {nobody}")
    assert not out.exists()


@pytest.mark.parametrize(
    "options", ["--device cpu", "--dtype float32", "--schedule lockstep", "--pass-tokens 9"]
)
def test_options_of_a_model_in_this_process_are_refused_for_a_server(
    folder: Path, nobody: str, options: str
) -> None:
    result = run("score", write_rows(folder, good()), "--model", nobody, *options.split())
    assert result.exit_code == 2
    assert "set them where the server is started" in plain(result.stderr)


def test_a_server_that_does_not_say_its_profile_cannot_be_asked_to_show_references(
    nobody: str,
) -> None:
    reward = load_process_reward(nobody)
    check_reference_use(reward, wanted=False)
    with pytest.raises(InputError, match="leave --show-reference out"):
        check_reference_use(reward, wanted=True)


def test_best_of_n_does_not_call_its_results_an_oracles_without_knowing(
    folder: Path, nobody: str
) -> None:
    row = {"question": "?", "images": "a.png", "candidates": ["1"], "reference_answer": "1"}
    rows, out = write_rows(folder, row), folder / "out.jsonl"
    result = run(
        *("best-of-n", rows, "-o", str(out), "--outcome", "exact"),
        *("--model", nobody, "--show-reference"),
    )
    assert result.exit_code == 2
    assert "leave --show-reference out" in plain(result.stderr)
    assert not out.exists()
