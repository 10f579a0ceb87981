"""Servers that fail, one way after another: each has its outcome, and nothing hangs."""

import asyncio
import os
import signal
import time

import pytest

from tests.engines.openai_server import FakeServer, wait_until
from tests.engines.test_openai import ASK, RENDER, engine_for, generate, judge
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.openai.engine import OpenAIEngine
from vrprm_reward.engines.openai.errors import (
    ServerAnswerError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from vrprm_reward.engines.openai.options import OpenAIOptions
from vrprm_reward.engines.openai.servers import Fleet
from vrprm_reward.errors import EngineClosedError, InputError

pytestmark = pytest.mark.timeout(60)


async def judge_many(engine, number):
    return await asyncio.gather(
        *(engine.judge(ASK, share=index) for index in range(number)), return_exceptions=True
    )


def connected(engine):
    """Probes are done, so that what happens next happens to judgements."""
    engine.connect()
    return engine


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (500, "status"),
        (503, "status"),
        (408, "status"),
        (429, "status"),
        ("cut", "connection"),
        ("half", "connection"),
        ("half_unannounced", "answer"),
        ("no_json", "answer"),
        ("abort", "answer"),
    ],
)
def test_a_passing_failure_is_tried_again_and_counted(fault, kind):
    with FakeServer() as server, engine_for(server) as engine:
        expected = judge(connected(engine))
        server.faults.extend([fault, fault])
        assert judge(engine) == expected
        (stats,) = engine.stats
        assert stats.failures == {kind: 2}
        assert stats.requests == len(server.paths)
        assert stats.in_flight == 0


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (500, ServerFailedError, "HTTP 500 .a fault on purpose.; given up after 3 attempts"),
        (429, ServerFailedError, "HTTP 429"),
        ("cut", ServerUnreachableError, "given up after 3 attempts"),
        ("half", ServerUnreachableError, "incomplete|without sending complete"),
        ("half_unannounced", ServerAnswerError, "not JSON"),
        ("no_json", ServerAnswerError, "not JSON .<html>Welcome"),
        ("abort", ServerAnswerError, "broke off a request .finish_reason 'abort'.*after 3"),
    ],
)
def test_a_failure_that_stays_is_one_clear_error_after_all_attempts(fault, error, message):
    with FakeServer() as server, engine_for(server, max_attempts=3) as engine:
        judge(connected(engine))
        before = len(server.asked())
        server.faults.extend([fault] * 50)
        with pytest.raises(error, match=message):
            judge(engine)
        # A lost connection makes the engine begin with its probes again.
        assert len(server.faults) == 47
        assert len(server.asked()) <= before + 3


def test_a_missing_server_is_one_clear_error_with_its_address():
    with FakeServer() as server:
        pass
    with engine_for(server, max_attempts=3) as engine:
        for ask in (lambda: judge(engine), engine.connect):
            with pytest.raises(ServerUnreachableError, match="3 attempts") as caught:
                ask()
            assert server.url in str(caught.value)


def test_a_proxy_of_the_environment_is_named_or_refused_without_its_password(monkeypatch):
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:hidden@127.0.0.1:9")
    with (
        FakeServer() as server,
        engine_for(server, max_attempts=2) as engine,
        pytest.raises(ServerUnreachableError, match=r"through the proxy http://127.0.0.1:9 "),
    ):
        judge(engine)
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:hidden@127.0.0.1:9")
    with FakeServer() as server, engine_for(server) as engine:
        for ask in (engine.connect, lambda: judge(engine)):
            with pytest.raises(InputError, match=r"httpx2.socks.") as refused:
                ask()
            assert "hidden" not in str(refused.value)


def test_many_calls_to_a_missing_server_end_together_without_storming_it():
    with FakeServer() as server:
        pass
    with engine_for(server, max_attempts=4, max_in_flight=50) as engine:
        outcomes = asyncio.run(judge_many(engine, 200))
        assert {type(outcome) for outcome in outcomes} == {ServerUnreachableError}
        assert engine.stats[0].requests <= 4
        assert engine.stats[0].failures["connection"] < 60


def test_a_server_that_cannot_be_reached_in_time_costs_one_timeout_and_not_one_for_each_call():
    # The address is reserved for documentation: nothing answers there, if packets leave at all.
    engine = OpenAIEngine(
        ["http://192.0.2.1:9/v1"],
        render=RENDER,
        options=OpenAIOptions(connect_timeout=0.2, max_attempts=2, first_pause=0.01),
    )
    outcomes = asyncio.run(judge_many(engine, 64))
    engine.close()
    assert {type(outcome) for outcome in outcomes} == {ServerUnreachableError}
    assert engine.stats[0].requests <= 2


def test_the_next_attempt_goes_to_another_server():
    with FakeServer() as one, FakeServer() as two, engine_for(one, two) as engine:
        expected = judge(connected(engine), share="a rollout")
        home, other = (one, two) if one.asked() else (two, one)
        home.faults.extend([500] * 50)
        assert judge(engine, share="a rollout") == expected
        assert (len(home.asked()), len(other.asked())) == (2, 1)


def test_a_turn_that_is_given_to_a_call_just_cancelled_goes_to_the_next():
    async def scenario():
        fleet = Fleet(["http://127.0.0.1:9/v1"], OpenAIOptions(max_in_flight=1))
        server = await fleet._take(None, None, 0.0, None, None)
        now = asyncio.get_running_loop().time()
        waiting = [asyncio.create_task(fleet._take(None, None, now, None, None)) for _ in range(2)]
        await asyncio.sleep(0)
        fleet._give_back(server)
        waiting[0].cancel()
        assert await waiting[1] is server
        assert server.in_flight == 1
        await fleet.close()

    asyncio.run(scenario())


def test_the_wait_that_a_busy_server_asks_for_is_kept():
    with FakeServer() as server, engine_for(server) as engine:
        judge(connected(engine))
        server.faults.append((429, "0.4"))
        started = time.monotonic()
        judge(engine)
        assert time.monotonic() - started >= 0.4


def test_while_one_server_asks_to_wait_the_other_answers():
    with FakeServer() as one, FakeServer() as two, engine_for(one, two) as engine:
        connected(engine)
        one.faults.append((503, "30"))
        two.faults.append(None)
        for _ in range(6):
            judge(engine)
        assert len(one.asked()) <= 1


@pytest.mark.parametrize("wait", ["0", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_asks_for_no_wait_is_asked_again_after_the_ordinary_pause(wait, monkeypatch):
    pauses = []
    monkeypatch.setattr(Fleet, "_pause", lambda _, tries: pauses.append(tries) or 0.0)
    with FakeServer() as server, engine_for(server) as engine:
        judge(connected(engine))
        server.faults.extend([(503, wait)] * 3)
        judge(engine)
    assert pauses == [1, 2, 3]


def test_a_server_is_not_left_alone_for_as_long_as_it_likes():
    with FakeServer() as server, engine_for(server, total_timeout=0.5) as engine:
        judge(connected(engine))
        server.faults.append((429, "86400"))
        with pytest.raises(ServerTimeoutError):
            judge(engine)
        assert engine._fleet.servers[0].resting_until - time.monotonic() <= 60


def test_a_wait_beyond_the_total_time_is_an_error_at_once():
    with FakeServer() as server, engine_for(server, total_timeout=50.0) as engine:
        judge(connected(engine))
        server.faults.append((429, "3600"))
        with pytest.raises(ServerTimeoutError, match="total_timeout"):
            judge(engine)


def test_a_server_that_does_not_answer_is_given_up_after_the_total_time():
    with (
        FakeServer() as server,
        engine_for(server, attempt_timeout=0.2, total_timeout=0.7) as engine,
    ):
        judge(connected(engine))
        server.faults.extend(["hang"] * 50)
        started = time.monotonic()
        with pytest.raises(ServerTimeoutError, match="did not answer within 0"):
            judge(engine)
        assert time.monotonic() - started > 0.6
        assert engine.stats[0].failures["timeout"] >= 3


def test_one_slow_answer_is_left_and_asked_for_again():
    with FakeServer() as server, engine_for(server, attempt_timeout=0.3) as engine:
        expected = judge(connected(engine))
        server.faults.append("hang")
        assert judge(engine) == expected
        wait_until(lambda: server.disconnected == 1)


def test_no_server_gets_more_requests_at_one_time_than_allowed():
    with FakeServer(delay=0.02) as server, engine_for(server, max_in_flight=3) as engine:
        outcomes = asyncio.run(judge_many(engine, 30))
        assert not any(isinstance(outcome, Exception) for outcome in outcomes)
        assert server.most_in_flight == engine.stats[0].most_in_flight == 3


def test_calls_are_spread_evenly_over_servers_of_equal_speed():
    with FakeServer(delay=0.3) as one, FakeServer(delay=0.3) as two:
        with engine_for(one, two) as engine:
            connected(engine)
            asyncio.run(judge_many(engine, 8))
        assert (len(one.asked()), len(two.asked())) == (4, 4)


def test_a_slower_server_gets_fewer_calls():
    with (
        FakeServer(delay=0.3) as slow,
        FakeServer(delay=0.01) as fast,
        engine_for(slow, fast, max_in_flight=4) as engine,
    ):
        connected(engine)
        asyncio.run(judge_many(engine, 40))
        assert len(slow.asked()) < len(fast.asked())
        assert len(slow.asked()) + len(fast.asked()) == 40


def test_calls_without_company_stay_with_one_server_for_its_cached_prefix():
    with FakeServer() as one, FakeServer() as two, engine_for(one, two) as engine:
        share = "a rollout"
        for _ in range(6):
            judge(engine, share=share)
        assert sorted([len(one.asked()), len(two.asked())]) == [0, 6]


def test_a_server_that_dies_in_the_middle_loses_nothing():
    with (
        FakeServer(delay=0.02) as one,
        FakeServer(delay=0.02) as two,
        engine_for(one, two, max_in_flight=4) as engine,
    ):
        expected = judge(connected(engine))
        one.faults.extend([None] * 10 + [one.stop_soon])
        outcomes = asyncio.run(judge_many(engine, 80))
        assert outcomes == [expected] * 80
        assert engine.stats[0].failures["connection"] >= 1
        assert len(two.asked()) > 40


def test_a_second_server_that_is_not_there_does_not_keep_the_first_from_starting():
    with FakeServer() as gone:
        pass
    with FakeServer() as server, engine_for(gone, server) as engine:
        engine.connect()
        assert not any(isinstance(o, Exception) for o in asyncio.run(judge_many(engine, 10)))


def test_a_cancelled_call_closes_its_connection_and_gives_its_place_back():
    async def cancelled(engine):
        task = asyncio.create_task(engine.judge(ASK, share=None))
        await asyncio.to_thread(wait_until, lambda: len(server.asked()) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with FakeServer() as server, engine_for(server, max_in_flight=1) as engine:
        connected(engine)
        server.faults.append("hang")
        asyncio.run(cancelled(engine))
        wait_until(lambda: server.disconnected == 1)
        judge(engine)
        assert engine.stats[0].in_flight == 0


def test_a_cancelled_call_that_waits_for_its_turn_takes_none():
    async def scenario(engine):
        first = asyncio.create_task(engine.judge(ASK, share=1))
        await asyncio.to_thread(wait_until, lambda: len(server.asked()) == 1)
        waiting = [asyncio.create_task(engine.judge(ASK, share=n)) for n in range(20)]
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await first
        await engine.judge(ASK, share=2)

    with FakeServer(delay=0.3) as server, engine_for(server, max_in_flight=1) as engine:
        server.delay = 0
        connected(engine)
        server.delay = 0.3
        asyncio.run(scenario(engine))
        assert len(server.asked()) == 2


def test_closing_ends_calls_under_way_and_those_that_wait():
    async def scenario(engine):
        tasks = [asyncio.create_task(engine.judge(ASK, share=n)) for n in range(6)]
        await asyncio.to_thread(wait_until, lambda: len(server.asked()) == 2)
        await asyncio.to_thread(engine.close)
        return await asyncio.gather(*tasks, return_exceptions=True)

    with FakeServer() as server, engine_for(server, max_in_flight=2) as engine:
        connected(engine)
        server.faults.extend(["hang"] * 6)
        outcomes = asyncio.run(scenario(engine))
        assert {type(outcome) for outcome in outcomes} == {EngineClosedError}


def test_waiting_for_a_turn_does_not_count_while_others_are_answered():
    with (
        FakeServer(delay=0.1) as server,
        engine_for(server, max_in_flight=1, total_timeout=0.5) as engine,
    ):
        server.delay = 0
        connected(engine)
        server.delay = 0.1
        outcomes = asyncio.run(judge_many(engine, 12))
        assert not any(isinstance(outcome, Exception) for outcome in outcomes)


def test_a_stumble_over_a_named_image_sends_it_again(picture):
    from vrprm_reward.images import FinalImage

    prompt = Prompt((Message("user", (FinalImage(picture), "look")),))
    with FakeServer(names_images=True) as server, engine_for(server) as engine:
        judge(engine, prompt)
        server.faults.append(500)
        judge(engine, prompt)
        sent = [r["messages"][0]["content"][0]["image_url"] for r in server.asked()]
        assert [part is not None for part in sent] == [True, False, True]


def test_the_engine_works_in_a_forked_child():
    with FakeServer() as server, engine_for(server) as engine:
        expected = judge(engine)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                os.write(writer, str(judge(engine) == expected).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 10) == b"True"
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("wrong", [{"max_in_flight": 0}, {"total_timeout": float("inf")}])
def test_options_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OpenAIOptions(**wrong)


def test_a_generation_survives_failures_too():
    with FakeServer() as server, engine_for(server) as engine:
        connected(engine)
        server.faults.extend(["cut", 500, "half", "abort"])
        assert generate(engine).text == "<think>Looks fine.</think>"
