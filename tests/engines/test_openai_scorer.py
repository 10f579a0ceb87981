"""The VRPRM scorer over HTTP: the scores of the scripted engine, in few requests in sequence."""

import hashlib
import json

import pytest

from tests.engines.openai_server import FakeServer
from tests.engines.test_openai import engine_for
from tests.scoring.doubles import ScriptedEngine
from vrprm_reward import load_profile
from vrprm_reward.scoring.profile import builtin_profiles
from vrprm_reward.scoring.scorer import VRPRMScorer

pytestmark = pytest.mark.timeout(60)

STEPS = 5
RESPONSE = "\n\n".join(f"Claim {index} holds." for index in range(STEPS))
ANALYSIS = "<think>Hm.</think>\n[Step Analysis]\n" + "".join(
    f"Step {index}: fine \\boxed{{1}}\n" for index in range(STEPS)
)


def by_content(text):
    """Log-probabilities that any change of the prompt changes."""
    first, second = hashlib.sha256(text.encode()).digest()[:2]
    return -first / 50, -second / 50


def thinking_of(profile):
    return ANALYSIS if profile.frame == "score_json" else "<think>Looks fine.</think>"


def most_in_sequence(spans):
    """Requests in the longest chain of which each began after the one before had ended."""
    chain, free_at = 0, 0.0
    for began, ended in sorted(spans, key=lambda span: span[1]):
        if began >= free_at:
            chain, free_at = chain + 1, ended
    return chain


@pytest.mark.parametrize("name", builtin_profiles())
@pytest.mark.parametrize(("logprobs", "lists"), [("raw", False), ("renormalised", True)])
def test_scores_over_http_are_those_of_the_scripted_engine(make_rollout, name, logprobs, lists):
    profile = load_profile(name)
    rollouts = [make_rollout(RESPONSE + f"\n\nLast {i}.") for i in range(6)]
    if profile.frame == "score_json":
        rollouts = [make_rollout(RESPONSE, question=f"What is {i}?") for i in range(6)]
    scripted = ScriptedEngine(by_content, thinking=thinking_of(profile))
    wanted = VRPRMScorer(lambda: scripted, profile, schedule="fixed_point").score(rollouts)
    with (
        FakeServer(
            by_content,
            thinking=thinking_of(profile),
            logprobs=logprobs,
            lists=lists,
            chats=lists,
        ) as server,
        engine_for(server) as engine,
    ):
        scorer = VRPRMScorer(lambda: engine, profile)
        found = scorer.score(rollouts)
        scorer.close()
    assert any(score.usage.rounds > 1 for score in wanted) or profile.frame == "score_json"
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.scored
        assert ours.p_correct == pytest.approx(theirs.p_correct, abs=1e-12)
        same = {"p_correct": (), "usage": None, "status": "unscored_ours", "reason": "-"}
        assert ours.model_copy(update=same) == theirs.model_copy(update=same)
        counted = ("requests", "rounds")
        assert ours.usage.model_dump(include=counted) == theirs.usage.model_dump(include=counted)


@pytest.mark.parametrize("name", ["two_stage", "answer_block", "score_list"])
def test_a_rollout_waits_for_at_most_one_request_and_its_rounds(make_rollout, name):
    profile = load_profile(name)
    with FakeServer(by_content, thinking=thinking_of(profile)) as server:
        with engine_for(server, image_references=False) as engine:
            scorer = VRPRMScorer(lambda: engine, profile)
            scorer.score([make_rollout(RESPONSE, question="Another question?")])  # probes
            server.delay = 0.4
            server.spans.clear()
            (score,) = scorer.score([make_rollout(RESPONSE)])
            scorer.close()
        assert score.scored
        thinks = profile.think is not None
        assert most_in_sequence(server.spans) <= thinks + score.usage.rounds
        assert len(server.spans) == score.usage.requests


def test_a_round_is_one_request_where_a_server_takes_several_prompts(make_rollout):
    profile = load_profile("two_stage")
    with FakeServer(by_content, lists=True) as server, engine_for(server) as engine:
        engine.connect()
        scorer = VRPRMScorer(lambda: engine, profile)
        scores = scorer.score([make_rollout(RESPONSE + f"\n\nLast {i}.") for i in range(6)])
        scorer.close()
        asked = [request["prompt"] for request in server.asked() if "prompt" in request]
    assert len(asked) == sum(score.usage.rounds for score in scores)
    assert sum(map(len, asked)) == sum(score.usage.requests - 1 for score in scores)
    assert all(any(step.text in prompt[0] for step in scores[0].steps) for prompt in asked)


@pytest.mark.parametrize("name", ["multi_turn", "answer_block", "score_json"])
def test_an_image_travels_once_for_each_rollout_that_keeps_it_in_context(make_rollout, name):
    profile = load_profile(name)
    with FakeServer(by_content, thinking=thinking_of(profile), names_images=True) as server:
        with engine_for(server) as engine:
            scorer = VRPRMScorer(lambda: engine, profile)
            (score,) = scorer.score([make_rollout(RESPONSE)])
            scorer.close()
        requests = [json.dumps(request) for request in server.asked()]
    assert score.scored
    assert len(requests) > STEPS
    assert [r.count("data:image/png;base64,") for r in requests] == [1] + [0] * (len(requests) - 1)
    assert all(r.count('"uuid"') == 1 for r in requests)


def test_a_fleet_whose_server_dies_scores_everything_as_before(make_rollout):
    profile = load_profile("two_stage")
    rollouts = [make_rollout(RESPONSE + f"\n\nLast {i}.") for i in range(20)]
    scripted = ScriptedEngine(by_content)
    wanted = VRPRMScorer(lambda: scripted, profile).score(rollouts)
    with (
        FakeServer(by_content) as one,
        FakeServer(by_content) as two,
        engine_for(one, two, max_in_flight=4) as engine,
    ):
        engine.connect()
        one.faults.extend([None] * 10 + [one.stop_soon])
        scorer = VRPRMScorer(lambda: engine, profile)
        found = scorer.score(rollouts)
        scorer.close()
        assert engine.stats[0].failures["connection"] > 0
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.p_correct == pytest.approx(theirs.p_correct, abs=1e-12)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"honours": ()}, "constraint_ignored"),
        ({"logprobs": "none"}, "logprobs_missing"),
        ({"logprobs": "chosen"}, "logprobs_missing"),
        ({"template": "strips"}, "template_refused"),
        ({"template": "opens"}, "template_refused"),
        ({"model": "another"}, "servers_disagree"),
        ({"api_key": "secret"}, "server_refused"),
        ({"faults": "cut"}, "server_unreachable"),
        ({"faults": "half"}, "server_unreachable"),
        ({"faults": "hang"}, "server_timeout"),
        ({"faults": 500}, "server_failed"),
        ({"faults": (429, "0.01")}, "server_failed"),
        ({"faults": "no_json"}, "server_answer"),
        ({"context": 700}, "prompt_too_long"),
        ({"context": 700}, "problem_too_long"),
    ],
)
def test_every_faulty_server_leaves_rollouts_unscored_with_its_reason(
    make_rollout, behaviour, reason
):
    options = {"max_attempts": 3, "attempt_timeout": 0.3, "total_timeout": 0.8}
    question = "What? " * (150 if reason == "problem_too_long" else 1)
    response = "A.\n\nB." + " And so on." * (100 if reason == "prompt_too_long" else 0)
    with FakeServer(by_content, **{k: v for k, v in behaviour.items() if k != "faults"}) as server:
        server.faults.extend([behaviour["faults"]] * 999 if "faults" in behaviour else [])
        with engine_for(server, model="vrprm-test", **options) as engine:
            scorer = VRPRMScorer(lambda: engine, load_profile("two_stage"))
            scores = scorer.score([make_rollout(response, question=question + str(i))
                                   for i in range(3)])  # fmt: skip
            scorer.close()
    status = "unscored_response" if reason == "prompt_too_long" else "unscored_ours"
    assert {(score.status, score.reason) for score in scores} == {(status, reason)}
    assert all(score.p_correct == () for score in scores)
