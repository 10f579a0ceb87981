"""`vrprm-reward serve --upstream`: a reward server in front of model servers."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from tests.engines.openai_server import FakeServer
from tests.server.doubles import Process, asynchronous, item
from vrprm_reward.engines.openai.errors import ServerUnreachableError
from vrprm_reward.server import service
from vrprm_reward.server.app import create_app
from vrprm_reward.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def serve(*options, **environment):
    """`vrprm-reward serve` in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "vrprm_reward.cli", "serve", "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    try:
        yield Process(child)
    finally:
        child.kill()
        child.wait()


async def until_ready(client):
    while (await client.get("/ready")).status_code != 200:
        await asyncio.sleep(0.05)


@asynchronous
async def test_rollouts_are_scored_by_the_servers_behind_it_and_one_may_die():
    with (
        FakeServer(api_key="the-key") as one,
        FakeServer(api_key="the-key") as two,
        serve(
            *("--upstream", f"{one.url},{two.url}", "--profile", "demo"),
            *("--upstream-in-flight", "4"),
            VRPRM_UPSTREAM_KEY="the-key",
        ) as server,
    ):
        async with httpx2.AsyncClient(base_url=server.url, timeout=30) as client:
            await until_ready(client)
            one.faults.extend([None] * 4 + [one.stop_soon])
            rollouts = [item(f"One {n}.\n\nTwo.", id=str(n)) for n in range(12)]
            answer = await client.post("/v1/score", json={"rollouts": rollouts})
        scores = answer.json()["scores"]
        assert [score["id"] for score in scores] == [str(n) for n in range(12)]
        assert all(len(score["p_correct"]) == 2 for score in scores)
        assert one.asked()
        assert max(one.most_in_flight, two.most_in_flight) <= 4


@asynchronous
async def test_it_waits_for_servers_that_are_not_there_yet(monkeypatch):
    monkeypatch.setattr(service, "_BETWEEN_TRIES", 0.01)

    class Late:
        tries = 0

        @property
        def engine(self):
            self.tries += 1
            if self.tries < 3:
                raise ServerUnreachableError("nobody is there")
            return "an engine"

    late = Late()
    app = create_app(late, ServerSettings(upstream_seconds=20))
    async with app.router.lifespan_context(app):
        await app.state.service.readiness.loaded.wait()
    assert late.tries == 3


@asynchronous
async def test_servers_that_never_come_are_an_error_when_the_time_is_over():
    class Never:
        @property
        def engine(self):
            raise ServerUnreachableError("nobody is there")

    failures: list[Exception] = []
    app = create_app(Never(), ServerSettings(upstream_seconds=0), on_failure=failures.append)
    async with app.router.lifespan_context(app):
        while not failures:
            await asyncio.sleep(0.01)
    assert isinstance(failures[0], ServerUnreachableError)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--upstream http://a/v1 --model x", "exclude one another"),
        ("--upstream http://a/v1 --device cuda", "are for a model in this process"),
        ("--upstream-model x", "change nothing without --upstream"),
        ("--upstream-in-flight 3", "change nothing without --upstream"),
        ("--upstream-seconds 3", "change nothing without --upstream"),
        ("--upstream a:8000", "is no base URL"),
        ("--upstream http://a,http://a/v1", "stands twice"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, says):
    import typer

    from vrprm_reward.commands.serve import serve as command

    app = typer.Typer()
    app.command()(command)
    runner = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "300"})
    result = runner.invoke(app, options.split())
    assert result.exit_code == 2
    assert says in result.output
