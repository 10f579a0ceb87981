import asyncio
import os
import signal
import threading

import httpx2
import pytest

from tests.engines.openai_server import FakeServer
from tests.engines.test_openai import RENDER
from tests.server.doubles import served_process
from vrprm_reward.background import BackgroundLoop
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.engines.openai.engine import OpenAIEngine
from vrprm_reward.errors import EngineClosedError
from vrprm_reward.scoring.profile import load_profile
from vrprm_reward.scoring.scorer import VRPRMScorer

pytestmark = pytest.mark.timeout(60)


def outcome_of(call):
    """The outcome of a call in another thread, when it ends."""
    found = []

    def run():
        try:
            found.append(call())
        except Exception as error:  # noqa: BLE001  it is what the test looks at
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def outcome():
        thread.join(20)
        assert found, "the call did not end"
        return found[0]

    return outcome


def test_closing_ends_calls_under_way_with_an_error_and_finishes_them_first():
    loop, begun, ended = BackgroundLoop(), threading.Event(), []

    async def work():
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("work")

    async def last():
        ended.append("last")

    outcome = outcome_of(lambda: loop.run(work()))
    assert begun.wait(10)
    loop.close(last())
    assert isinstance(outcome(), EngineClosedError)
    assert ended == ["work", "last"]
    assert loop.run(asyncio.sleep(0, "again")) == "again"
    loop.close()
    loop.close(last())
    assert ended == ["work", "last"]


def in_child(work):
    """What a forked child finds, as text; empty if it hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(15)
        try:
            os.write(writer, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


def test_a_forked_child_begins_anew_even_if_the_lock_was_held():
    loop = BackgroundLoop()
    assert loop.run(asyncio.sleep(0, "parent")) == "parent"
    with loop._lock:
        assert in_child(lambda: loop.run(asyncio.sleep(0, "child"))) == "child"
        assert in_child(loop.close) == "None"
    assert loop.run(asyncio.sleep(0, "parent")) == "parent"
    loop.close()


def openai_scorer(server):
    return VRPRMScorer(lambda: OpenAIEngine([server.url], render=RENDER), load_profile("two_stage"))


def test_a_scorer_scores_in_a_forked_child(make_rollout):
    with FakeServer() as server:
        scorer = openai_scorer(server)
        assert scorer.score([make_rollout()])[0].scored
        assert in_child(lambda: scorer.score([make_rollout()])[0].scored) == "True"
        scorer.close()


def test_closing_a_scorer_ends_a_score_in_another_thread(make_rollout):
    with FakeServer() as server:
        scorer = openai_scorer(server)
        scorer.score([make_rollout()])
        server.delay = 30
        outcome = outcome_of(lambda: scorer.score([make_rollout("Another.")])[0].reason)
        while not server.in_flight:
            threading.Event().wait(0.01)
        scorer.close()
        found = outcome()
        assert found == "engine_closed" or isinstance(found, EngineClosedError)


def test_closing_a_client_ends_a_score_in_another_thread(make_rollout):
    with served_process() as server:
        remote = RemoteProcessReward(server.url)
        assert remote.score([make_rollout("sleep 0")])[0].scored
        outcome = outcome_of(lambda: remote.score([make_rollout("gate")]))
        while "vrprm_running_rollouts 1.0" not in httpx2.get(f"{server.url}/metrics").text:
            threading.Event().wait(0.01)
        remote.close()
        assert isinstance(outcome(), EngineClosedError)
        assert remote.score([make_rollout("sleep 0")])[0].scored
        remote.close()
