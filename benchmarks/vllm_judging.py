"""Judging through a real vLLM: all steps in flight against one request per step in sequence.

    python -m benchmarks.vllm_judging [--rollouts 32] [--at-once 1,4,16] [--repeats 3] \
        [--profiles demo,answer_block] [--official demo] [--vllm="--dtype bfloat16"]

Starts vLLM with the demo checkpoint (so it needs the environment of `make integration`). The plain
client follows the official pattern: as many rollouts at once, each asking for one step after
another with a full prompt and nothing in flight beside it. It does so in each of `--profiles`, with
the same prompts and the same thinking as this engine; or always in the profile `--official`, which
is how VRPRM is evaluated where that is of the frame `two_stage`. Before each run the server's
prefix cache is emptied and the rollouts are thought about, which is not timed: judging finds in the
cache what it finds there in use.
"""

import argparse
import asyncio
import os
import platform
import random
import shlex
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from tests.integration.processes import MODEL, exit_when_terminated, vllm
from vrprm_reward import load_profile
from vrprm_reward.demo import world
from vrprm_reward.demo.evaluate import rollout_of
from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.engines.openai import answers, wire
from vrprm_reward.engines.openai.engine import OpenAIEngine
from vrprm_reward.scoring.scorer import VRPRMScorer
from vrprm_reward.scoring.template import render_template
from vrprm_reward.types import ProcessScore, Rollout

SEED = 77


class Remembered:
    """An engine that thinks once about each prompt and remembers it."""

    def __init__(self, engine: OpenAIEngine) -> None:
        self._engine = engine
        self._asked: dict[Prompt, dict[str, Any]] = {}
        self.thoughts: dict[Prompt, Generation] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, prompt: Prompt, **more: Any) -> Generation:
        if prompt not in self.thoughts:
            self._asked[prompt] = more
            self.thoughts[prompt] = await self._engine.generate(prompt, **more)
        return self.thoughts[prompt]

    async def think_again(self) -> None:
        """Let the server have in its cache what it has after thinking."""
        asked = self._asked.items()
        await asyncio.gather(*(self._engine.generate(prompt, **more) for prompt, more in asked))


class PlainClient:
    """Asks for one judgement with one request, and knows nothing else."""

    identity = "plain client"
    added_tokens = OpenAIEngine(["http://unused"], render=render_template).added_tokens
    deterministic = False

    def __init__(self, url: str, thoughts: dict[Prompt, Generation]) -> None:
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.AsyncClient(base_url=url, timeout=600, limits=limits)
        self._thoughts = thoughts
        self.requests = 0

    async def generate(self, prompt: Prompt, **_: Any) -> Generation:
        return self._thoughts[prompt]

    async def judge(self, prompt: Prompt, **_: Any) -> Judgement:
        self.requests += 1
        way = wire.Way("structured_outputs", 20)
        body = wire.prompt_body(prompt, model=MODEL) | wire.choice_fields("chat", way)
        answer = await self._client.post("/v1/chat/completions", json=body)
        return answers.read_judgement(answer.json(), "chat", "vLLM")

    def expect(self, share: object) -> None:
        pass

    def release(self, share: object) -> None:
        pass


def long_rollouts(count: int, min_steps: int) -> list[Rollout]:
    rng = random.Random(SEED)
    found: list[Rollout] = []
    while len(found) < count:
        rollout = rollout_of(world.random_example(rng))
        if len(rollout.steps or ()) >= min_steps:
            found.append(rollout)
    return found


async def timed(
    scorer: VRPRMScorer, rollouts: Sequence[Rollout], at_once: int
) -> tuple[float, list[ProcessScore]]:
    """Seconds and scores with so many rollouts at once."""
    places = asyncio.Semaphore(at_once)

    async def one(rollout: Rollout) -> ProcessScore:
        async with places:
            return (await scorer.ascore([rollout]))[0]

    began = time.perf_counter()
    scores = await asyncio.gather(*(one(rollout) for rollout in rollouts))
    return time.perf_counter() - began, scores


class Clients:
    """Both clients of a server in one profile. `ours` and `plain` are their scorers."""

    def __init__(self, url: str, profile_name: str) -> None:
        profile = load_profile(profile_name)
        engine = OpenAIEngine([url], render=partial(render_template, profile.conversation))
        self.close = engine.close
        self.remembered = Remembered(engine)
        self.ours = VRPRMScorer(lambda: self.remembered, profile, schedule="fixed_point")
        client = PlainClient(url, self.remembered.thoughts)
        self.plain = VRPRMScorer(lambda: client, profile, schedule="lockstep")


def furthest(found: Sequence[ProcessScore], wanted: Sequence[ProcessScore]) -> float:
    """The largest difference of two probabilities."""
    return max(
        abs(p - q)
        for a, b in zip(found, wanted, strict=True)
        for p, q in zip(a.p_correct, b.p_correct, strict=True)
    )


async def measure(
    url: str,
    profile_name: str,
    official: str,
    rollouts: Sequence[Rollout],
    at_once: Sequence[int],
    repeats: int,
) -> None:
    """Print seconds and ratios of our client in one profile and the plain one in another."""
    with (
        closing(Clients(url, profile_name)) as here,
        closing(here if official == profile_name else Clients(url, official)) as there,
    ):
        runs = {"plain": (there.plain, there.remembered), "ours": (here.ours, here.remembered)}
        scores: dict[str, list[ProcessScore]] = {}
        await timed(there.ours, rollouts, 16)  # thinks; the next lines warm everything up
        for name, (scorer, _) in runs.items():
            _, scores[name] = await timed(scorer, rollouts, 16)
        steps = sum(len(score.steps) for score in scores["ours"])
        usages = [score.usage for score in scores["ours"] if score.usage]
        rounds = statistics.mean(usage.rounds for usage in usages)
        judged = sum(usage.requests - 1 for usage in usages)
        pairs = zip(scores["plain"], scores["ours"], strict=True)
        other = sum(
            a != b for p, q in pairs for a, b in zip(p.judgements, q.judgements, strict=True)
        )
        print(
            f"profile {profile_name}: {len(rollouts)} rollouts, {steps} steps, "
            f"judged {judged} times in {rounds:.2f} rounds; plain client in {official}: "
            f"{other} other verdicts, "
            f"probabilities differ by {furthest(scores['plain'], scores['ours']):.0e} at most"
        )
        for count in at_once:
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(repeats):
                for name, (scorer, remembered) in runs.items():
                    reset = httpx2.post(f"{url}/reset_prefix_cache", timeout=60)
                    reset.raise_for_status()
                    await remembered.think_again()
                    taken, found = await timed(scorer, rollouts, count)
                    seconds[name].append(taken)
                    assert all(score.scored for score in found)
                    assert furthest(found, scores[name]) < 1e-3
            a, b = (statistics.median(seconds[name]) for name in ("plain", "ours"))
            spread = {n: f"{min(s):.2f}-{max(s):.2f}" for n, s in seconds.items()}
            print(
                f"  {count:3d} rollouts at once: plain {a:6.2f} s ({spread['plain']}), "
                f"ours {b:6.2f} s ({spread['ours']}), {a / b:.2f} times as fast",
                flush=True,
            )


def main() -> None:
    exit_when_terminated()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--at-once", default="1,4,16")
    parser.add_argument("--repeats", type=int, default=3)
    # VisualProcessBench has 9.4 steps a row.
    parser.add_argument("--min-steps", type=int, default=8)
    parser.add_argument("--profiles", default="demo")
    parser.add_argument("--official", help="the plain client's profile; default: ours")
    parser.add_argument("--vllm", default="", metavar="OPTIONS", help="more of its command line")
    options = parser.parse_args()
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # has /reset_prefix_cache
    rollouts = long_rollouts(options.rollouts, options.min_steps)
    at_once = [int(count) for count in options.at_once.split(",")]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    more = shlex.split(options.vllm)
    with tempfile.TemporaryDirectory() as folder, vllm(Path(folder), *more) as server:
        for name in options.profiles.split(","):
            official = options.official or name
            asyncio.run(measure(server.url, name, official, rollouts, at_once, options.repeats))
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
