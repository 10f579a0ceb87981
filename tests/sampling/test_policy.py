import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from vrprm_reward.engines.openai.errors import (
    ServerAnswerError,
    ServerFailedError,
    ServerRefusedError,
)
from vrprm_reward.sampling.policy import Continuation, OpenAIPolicy, OpenAIPolicySettings
from vrprm_reward.types import Problem

PROBLEM = Problem(question="<image>\nHow many?", images=(Image.new("RGB", (8, 8), "red"),))


class Server(ThreadingHTTPServer):
    """Answers with what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.choices: list[dict[str, Any]] = []
        self.statuses: list[int] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.server.bodies.append(json.loads(self.rfile.read(size)))
        self.server.headers.append(dict(self.headers))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        answer = {
            "choices": self.server.choices,
            "usage": {"prompt_tokens": 50, "completion_tokens": 7},
        }
        data = json.dumps(answer if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def choice(text: str, reason: str = "stop", **more: object) -> dict[str, Any]:
    return {"message": {"content": text}, "finish_reason": reason, **more}


def ask(
    server: Server, prefix: tuple[str, ...] = (), n: int = 2, **more: Any
) -> list[Continuation]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    policy = OpenAIPolicy(OpenAIPolicySettings(url=url, model="qwen", attempts=2, **more))
    return asyncio.run(policy.propose(PROBLEM, prefix, n, seed=7))


def test_a_step_that_ends_at_a_separator_goes_on_and_one_that_stops_is_the_last(
    server: Server,
) -> None:
    server.choices = [
        choice("Three.\n\n", stop_reason="\n\n"),
        choice("It is 3.", stop_reason=None),
    ]
    assert ask(server) == [
        Continuation("Three.", finished=False, tokens=4),
        Continuation("It is 3.", finished=True, tokens=3),
    ]


def test_sglang_says_the_same_in_its_own_words(server: Server) -> None:
    server.choices = [choice("Three.", matched_stop="\n\n"), choice("It is 3.", matched_stop=1516)]
    assert [c.finished for c in ask(server)] == [False, True]


def test_a_step_that_is_too_long_is_no_proposal(server: Server) -> None:
    server.choices = [choice("Three and", "length", stop_reason=None)]
    assert ask(server, n=1) == [Continuation("", finished=False, tokens=7)]


@pytest.mark.parametrize(("reason", "asked"), [("abort", 2), ("content_filter", 1)])
def test_a_step_that_was_broken_off_is_never_a_finished_response(
    server: Server, reason: str, asked: int
) -> None:
    server.choices = [choice("The blue sphere is to the", reason, stop_reason=None)]
    with pytest.raises(ServerAnswerError, match=reason):
        ask(server, n=1)
    assert len(server.bodies) == asked


def test_a_server_that_does_not_say_why_it_stopped_is_refused(server: Server) -> None:
    server.choices = [choice("Three.")]
    with pytest.raises(ServerAnswerError, match="stop_reason"):
        ask(server, n=1)


def test_the_request_has_images_question_and_sampling(server: Server) -> None:
    server.choices = [choice("Three.", stop_reason=None)]
    ask(server, n=1, api_key="k", system="Think.", temperature=0.5)
    (body,) = server.bodies
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    image, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "How many?"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert {k: body[k] for k in ("n", "seed", "temperature", "stop")} == {
        "n": 1,
        "seed": 7,
        "temperature": 0.5,
        "stop": ["\n\n"],
    }
    assert "continue_final_message" not in body
    assert server.headers[0]["Authorization"] == "Bearer k"


def test_the_accepted_steps_are_gone_on_with(server: Server) -> None:
    server.choices = [choice("It is 3.", stop_reason=None)]
    ask(server, prefix=("One.", "Two."), n=1)
    (body,) = server.bodies
    assert body["messages"][-1] == {"role": "assistant", "content": "One.\n\nTwo.\n\n"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_a_failure_that_passes_is_tried_again_and_one_that_stays_is_said(server: Server) -> None:
    server.choices = [choice("Three.", stop_reason=None)]
    server.statuses = [503]
    assert len(ask(server, n=1)) == 1
    server.statuses = [503, 503]
    with pytest.raises(ServerFailedError, match="2 attempts"):
        ask(server, n=1)
    server.statuses = [401]
    with pytest.raises(ServerRefusedError, match="401"):
        ask(server, n=1)


def test_fewer_choices_than_asked_for_are_an_error(server: Server) -> None:
    server.choices = [choice("Three.", stop_reason=None)]
    with pytest.raises(ServerAnswerError, match="n = 2"):
        ask(server, n=2)
