"""What the engine over HTTP finds out about a server before it relies on it."""

import asyncio
import json
import math
import re

import pytest

from tests.engines.openai_server import FakeServer
from tests.engines.test_openai import engine_for, generate, judge
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.openai.answers import read_judgement
from vrprm_reward.engines.openai.errors import (
    ConstraintIgnoredError,
    LogprobsMissingError,
    ServerAnswerError,
    TemplateRefusedError,
)
from vrprm_reward.scoring.parse import probability


@pytest.mark.parametrize("spelling", ["structured_outputs", "guided_choice", "regex"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("form", ["reply", "raw"])
def test_whichever_spelling_of_the_constraint_a_server_honours_is_found(spelling, strict, form):
    prompt = Prompt((Message("user", ("Is it so?",)),), form=form)
    with FakeServer(honours=(spelling,), strict=strict) as server, engine_for(server) as engine:
        for _ in range(3):
            assert probability(judge(engine, prompt)) == pytest.approx(1 / (1 + math.exp(-1.9)))
        requests = server.asked()
        assert len(requests) == 3
        assert all(spelling in request for request in requests)


@pytest.mark.parametrize("logprobs", ["raw", "renormalised"])
def test_raw_and_renormalised_log_probabilities_give_the_same_probability(logprobs):
    with (
        FakeServer(judge=lambda text: (-1.5, -3.25), logprobs=logprobs) as server,
        engine_for(server) as engine,
    ):
        assert probability(judge(engine)) == pytest.approx(1 / (1 + math.exp(1.75)))


@pytest.mark.parametrize(
    ("logprobs", "most", "asked"), [("renormalised", 20, 2), ("raw", 20, 20), ("raw", 5, 5)]
)
def test_a_server_lists_as_few_tokens_as_hold_both_verdicts(logprobs, most, asked):
    with (
        FakeServer(logprobs=logprobs, max_logprobs=most) as server,
        engine_for(server) as engine,
    ):
        for _ in range(2):
            judge(engine)
        assert [request["top_logprobs"] for request in server.asked()] == [asked] * 2


def test_a_server_that_ignores_the_constraint_is_refused_with_the_remedy():
    with FakeServer(honours=()) as server, engine_for(server) as engine:
        with pytest.raises(ConstraintIgnoredError, match="without --reasoning-parser") as caught:
            judge(engine)
        assert server.url in str(caught.value)
        assert server.asked() == []


def test_a_model_that_answers_1_of_its_own_accord_does_not_hide_an_ignored_constraint():
    with (
        FakeServer(honours=(), unconstrained="1") as server,
        engine_for(server) as engine,
        pytest.raises(ConstraintIgnoredError),
    ):
        judge(engine)


@pytest.mark.parametrize("text", ["The", " 1", "1.", ""])
def test_an_answer_that_is_not_exactly_a_verdict_is_never_read_leniently(text):
    with FakeServer() as server, engine_for(server) as engine:
        judge(engine)
        server.honours, server.unconstrained = (), text
        with pytest.raises(ConstraintIgnoredError, match=re.escape(repr(text))):
            judge(engine)


def test_a_verdict_that_is_not_the_first_token_is_not_taken_for_one():
    listed = [{"token": "0", "logprob": -1.0}, {"token": "1", "logprob": -1.0}]
    first = {"token": "<think>", "logprob": -0.1, "top_logprobs": listed}
    choice = {"message": {"content": "1"}, "logprobs": {"content": [first]}}
    answer = {"choices": [choice], "usage": {"prompt_tokens": 3}}
    with pytest.raises(ConstraintIgnoredError, match="<think>"):
        read_judgement(answer, "chat", "a server")
    first["token"] = "token_id:16"
    first["bytes"] = [49]
    assert read_judgement(answer, "chat", "a server").log_p1 == -1.0
    first["bytes"] = "49"
    choice["logprobs"]["content"] = ["1"]
    with pytest.raises(ServerAnswerError, match="unknown form"):
        read_judgement(answer, "chat", "a server")


@pytest.mark.parametrize("logprobs", ["none", "chosen", "spaced"])
def test_a_missing_log_probability_is_an_error_and_never_a_hard_verdict(logprobs):
    with FakeServer(logprobs=logprobs) as server, engine_for(server) as engine:
        with pytest.raises(LogprobsMissingError, match=r'no log-probability of "[01]"'):
            judge(engine)
        server.logprobs = "renormalised"
    with FakeServer() as server, engine_for(server) as engine:
        judge(engine)
        server.logprobs = logprobs
        with pytest.raises(LogprobsMissingError):
            judge(engine)


def test_a_server_that_lists_no_log_probabilities_is_refused_with_the_remedy():
    with (
        FakeServer(max_logprobs=1) as server,
        engine_for(server) as engine,
        pytest.raises(LogprobsMissingError, match="max-logprobs 20"),
    ):
        engine.connect()


@pytest.mark.parametrize("tokenizes", [True, False])
@pytest.mark.parametrize("template", ["strips", "opens", "joins"])
def test_a_template_that_changes_conversations_is_refused_with_the_command(template, tokenizes):
    with (
        FakeServer(template=template, tokenizes=tokenizes) as server,
        engine_for(server) as engine,
    ):
        with pytest.raises(TemplateRefusedError, match="vrprm-reward chat-template -o") as caught:
            engine.connect()
        why = {
            "strips": "deletes thinking",
            "opens": "opens <think> itself",
            "joins": "--chat-template-content-format openai",
        }
        assert (why[template] if tokenizes else "tokens in the") in str(caught.value)
        with pytest.raises(TemplateRefusedError):
            generate(engine)
        assert server.asked() == []


@pytest.mark.parametrize("tokenizes", [True, False])
def test_the_profiles_own_template_is_accepted(tokenizes):
    with FakeServer(tokenizes=tokenizes) as server, engine_for(server) as engine:
        engine.connect()
        assert generate(engine).text == "<think>Looks fine.</think>"


def test_a_template_that_cannot_be_compared_is_refused_unless_told_otherwise():
    with FakeServer(tokenizes=False, completes=False) as server:
        with (
            engine_for(server) as engine,
            pytest.raises(TemplateRefusedError, match="check_template=False"),
        ):
            engine.connect()
        with engine_for(server, check_template=False) as engine:
            engine.connect()
            assert judge(engine).log_p1 > -1


def test_a_server_whose_fault_was_mended_is_checked_again_after_a_while(monkeypatch):
    monkeypatch.setattr("vrprm_reward.engines.openai.servers._RECHECK", 0.05)
    with FakeServer(template="strips") as server, engine_for(server) as engine:
        with pytest.raises(TemplateRefusedError):
            judge(engine)
        server.template = "plain"
        asyncio.run(asyncio.sleep(0.06))
        judge(engine)


def test_a_server_that_can_tokenise_is_checked_without_generating_from_canaries():
    with FakeServer() as server, engine_for(server) as engine:
        engine.connect()
        assert server.asked() == []
        assert not any("CANARY THINKING" in json.dumps(r) for r in server.requests)


def test_a_verdict_behind_many_likelier_tokens_is_missing_with_a_remedy_that_helps():
    listed = [{"token": token, "logprob": -1.0} for token in ("1", "The", "It", "one", "I")]
    first = listed[0] | {"top_logprobs": listed}
    choice = {"message": {"content": "1"}, "logprobs": {"content": [first]}}
    answer = {"choices": [choice], "usage": {"prompt_tokens": 3}}
    with pytest.raises(LogprobsMissingError, match=r'of "0", .* among the 5 .*processed_logprobs'):
        read_judgement(answer, "chat", "a server")
