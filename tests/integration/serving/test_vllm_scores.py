"""The real vLLM gives the scores of the engine in this process, in few requests in sequence."""

import random
import time
from collections import defaultdict
from contextlib import closing

import pytest

from tests.engines.test_openai_scorer import most_in_sequence
from vrprm_reward import load_process_reward, load_profile
from vrprm_reward.demo import world
from vrprm_reward.demo.evaluate import rollout_of
from vrprm_reward.engines.engine import Generation
from vrprm_reward.process_reward import DEMO
from vrprm_reward.scoring.profile import builtin_profiles
from vrprm_reward.scoring.schedule import verdict
from vrprm_reward.scoring.scorer import VRPRMScorer

STEPS = 200
TOLERANCE = 1e-3
"""On probabilities."""


class Recorded:
    """An engine that remembers when each call of a share began and ended."""

    def __init__(self, engine):
        self._engine = engine
        self.calls = defaultdict(list)

    def __getattr__(self, name):
        return getattr(self._engine, name)

    async def generate(self, prompt, *, share, **more):
        return await self._timed(share, self._engine.generate(prompt, share=share, **more))

    async def judge(self, prompt, *, share):
        return await self._timed(share, self._engine.judge(prompt, share=share))

    async def _timed(self, share, call):
        began = time.monotonic()
        answer = await call
        self.calls[share].append((began, time.monotonic()))
        return answer


class Dictated(Recorded):
    """An engine that is told what it thought, in the form that `score_json` asks for."""

    async def generate(self, prompt, *, share, **more):
        lines = "".join(f"Step {index}: fine \\boxed{{1}}\n" for index in range(3))
        return Generation(f"<think>Hm.</think>\n[Step Analysis]\n{lines}", "stop", 1, 1)


def world_rollouts_with(steps: int, *, each: int | None = None):
    """Rollouts of the demo world with at least so many steps together, and `each` in each."""
    rng = random.Random(41)
    found = []
    while sum(len(rollout.steps) for rollout in found) < steps:
        rollout = rollout_of(world.random_example(rng))
        if each in (None, len(rollout.steps)):
            found.append(rollout)
    return found


def at_demo_size(name):
    """A packaged profile with the images and the length of thinking that the demo was made for."""
    profile, demo = load_profile(name), load_profile("demo")
    think = profile.think and profile.think.model_copy(update={"max_tokens": demo.think.max_tokens})
    return profile.model_copy(update={"pixels": demo.pixels, "think": think})


def engines(server, profile, checkpoint=DEMO):
    """The engine in this process and the one that asks vLLM."""
    local = load_process_reward(checkpoint, profile=profile)
    remote = load_process_reward(f"openai+{server.url}/v1", profile=profile)
    return closing(local.engine), closing(remote.engine)


def scores_by(engine, profile, rollouts):
    return VRPRMScorer(lambda: engine, profile).score(rollouts)


def assert_equal(ours, theirs):
    assert (ours.status, ours.reason) == (theirs.status, theirs.reason)
    assert ours.p_correct == pytest.approx(theirs.p_correct, abs=TOLERANCE)
    for p, q in zip(ours.p_correct, theirs.p_correct, strict=True):
        assert verdict(p) == verdict(q) or abs(p - 0.5) < TOLERANCE


def assert_scores_are_equal(server, name, checkpoint=DEMO):
    """Of both engines, on `STEPS` steps and more."""
    profile, rollouts = at_demo_size(name), world_rollouts_with(STEPS + 30)
    here, there = engines(server, profile, checkpoint)
    with here as local, there as remote:
        wanted, found = scores_by(local, profile, rollouts), scores_by(remote, profile, rollouts)
    # Two tokens may be so nearly as likely that rounding decides between them: other notes then.
    same = [
        pair for pair in zip(found, wanted, strict=True) if pair[0].thinking == pair[1].thinking
    ]
    assert len(same) >= len(rollouts) - 2
    assert sum(len(ours.steps) for ours, _ in same) >= STEPS
    for ours, theirs in same:
        assert_equal(ours, theirs)
    if profile.frame != "score_json":  # whose text must have a form that a small model may miss
        assert all(score.scored for score in found)


@pytest.mark.parametrize("name", [n for n in builtin_profiles() if load_profile(n).think])
def test_probabilities_and_verdicts_are_those_of_the_local_engine(vllm_server, name):
    assert_scores_are_equal(vllm_server, name)


def test_step_analyses_are_judged_as_by_the_local_engine(vllm_server):
    profile, rollouts = at_demo_size("score_json"), world_rollouts_with(STEPS, each=3)
    here, there = engines(vllm_server, profile)
    with here as local, there as remote:
        wanted = scores_by(Dictated(local), profile, rollouts)
        found = scores_by(Dictated(remote), profile, rollouts)
    assert all(score.scored for score in found)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("name", ["demo", "multi_turn", "answer_block"])
def test_no_rollout_waits_for_more_than_its_thinking_and_its_rounds(vllm_server, name):
    profile, rollouts = at_demo_size(name), world_rollouts_with(60)
    _, there = engines(vllm_server, profile)
    with there as remote:
        scores_by(remote, profile, rollouts[:1])  # the server is got to know
        recorded = Recorded(remote)
        (before,) = remote.stats
        scores = scores_by(recorded, profile, rollouts)
        (after,) = remote.stats
    # A round is one request, with images and without.
    assert after.requests - before.requests == sum(1 + s.usage.rounds for s in scores)
    in_sequence = sorted(most_in_sequence(calls) for calls in recorded.calls.values())
    assert in_sequence == sorted(1 + score.usage.rounds for score in scores)
    assert sum(in_sequence) < sum(1 + len(score.steps) for score in scores)
