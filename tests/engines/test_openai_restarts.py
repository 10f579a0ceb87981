"""Servers that are restarted, with other options or the same, noticed or not."""

import asyncio
import threading
import time

import pytest

from tests.engines.openai_server import FakeServer
from tests.engines.test_openai import engine_for, judge
from tests.engines.test_openai_faults import connected, judge_many
from vrprm_reward.engines.openai.errors import (
    ServersDisagreeError,
    ServerUnreachableError,
    TemplateRefusedError,
)

pytestmark = pytest.mark.timeout(60)


def test_a_server_that_comes_back_is_checked_and_used_again():
    with FakeServer() as server, engine_for(server, max_attempts=20) as engine:
        expected = judge(connected(engine))
        server.stop()
        back = threading.Timer(0.2, server.start)
        back.start()
        server.paths.clear()
        assert judge(engine) == expected
        back.join()
        assert "/tokenize" in server.paths


def restart(engine, *servers, template):
    """With another template, and not without being missed."""
    for server in servers:
        server.stop()
    asyncio.run(judge_many(engine, 20))
    for server in servers:
        server.template = template
        server.start()
    time.sleep(0.3)  # the rest after a lost connection


def test_a_server_restarted_with_other_options_is_passed_over_while_another_is_usable(caplog):
    with FakeServer() as one, FakeServer() as two, engine_for(one, two) as engine:
        expected = judge(connected(engine))
        restart(engine, one, template="strips")
        before = len(one.asked())
        for _ in range(3):
            assert asyncio.run(judge_many(engine, 20)) == [expected] * 20
        assert len(one.asked()) == before
        assert [r.levelname for r in caplog.records if "deletes thinking" in r.message] == [
            "WARNING"
        ]
        # The last usable one goes: an error that says so, and no waiting for the other.
        two.stop()
        outcomes = asyncio.run(judge_many(engine, 5))
        assert {type(outcome) for outcome in outcomes} == {ServerUnreachableError}


def test_when_no_server_is_usable_any_more_each_call_says_why():
    with (
        FakeServer() as one,
        FakeServer() as two,
        engine_for(one, two, longest_pause=0.2) as engine,
    ):
        judge(connected(engine))
        restart(engine, one, two, template="strips")
        outcomes = asyncio.run(judge_many(engine, 20))
        assert {type(outcome) for outcome in outcomes} == {TemplateRefusedError}


def test_a_server_passed_over_is_used_again_once_it_is_mended(monkeypatch):
    monkeypatch.setattr("vrprm_reward.engines.openai.servers._RECHECK", 0.3)
    with FakeServer() as one, FakeServer() as two, engine_for(one, two) as engine:
        expected = judge(connected(engine))
        restart(engine, one, template="strips")
        assert asyncio.run(judge_many(engine, 20)) == [expected] * 20
        before = len(one.asked())
        one.template = "plain"
        time.sleep(0.31)
        assert asyncio.run(judge_many(engine, 20)) == [expected] * 20
        assert len(one.asked()) > before


@pytest.fixture
def soon_silent(monkeypatch):
    """A server counts as silent at once, and no unused connection shows that it was restarted."""
    monkeypatch.setattr("vrprm_reward.engines.openai.servers._SILENCE", 0.2)
    monkeypatch.setattr("vrprm_reward.engines.openai.servers._KEEP_ALIVE", 0.05)


@pytest.mark.parametrize(
    ("restarted_with", "error"),
    [({"template": "strips"}, TemplateRefusedError), ({"model": "other"}, ServersDisagreeError)],
)
def test_a_server_restarted_while_nobody_asked_it_is_checked_again(
    restarted_with, error, soon_silent
):
    with FakeServer() as server, engine_for(server) as engine:
        judge(connected(engine))
        time.sleep(0.3)
        server.stop()
        for name, value in restarted_with.items():
            setattr(server, name, value)
        server.start()
        before = len(server.asked())
        outcomes = asyncio.run(judge_many(engine, 5))
        assert {type(outcome) for outcome in outcomes} == {error}
        assert len(server.asked()) == before
        assert engine.stats[0].failures == {}


def test_a_silent_server_is_checked_once_for_all_that_ask_and_an_answering_one_never(monkeypatch):
    with FakeServer() as server, engine_for(server) as engine:
        expected = judge(connected(engine))
        for _ in range(3):
            time.sleep(0.1)
            judge(engine)
        assert server.paths.count("/v1/models") == 1
        monkeypatch.setattr("vrprm_reward.engines.openai.servers._SILENCE", 0.2)
        time.sleep(0.3)
        assert asyncio.run(judge_many(engine, 20)) == [expected] * 20
        assert server.paths.count("/v1/models") == 2


def test_a_failure_in_the_middle_of_a_new_check_does_not_count_as_passed(soon_silent):
    with FakeServer(tokenizes=False) as server, engine_for(server) as engine:
        judge(connected(engine))
        server.template = "strips"
        time.sleep(0.3)
        server.faults.append(503)
        with pytest.raises(TemplateRefusedError):
            judge(engine)
