"""The HTTP server under load: 64 clients, 2,000 rollouts, overload, and SIGTERM in the middle.

    python -m benchmarks.soak_server [--rollouts 2000] [--clients 64] [--model demo]

Prints a line for each finding and writes them to `benchmarks/results/soak_server.json`. Exit status
0: all held. Run by hand (`make soak`), on a machine that does nothing else.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.demo import world
from vrprm_reward.demo.questions import random_question
from vrprm_reward.steps import split_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout

RESULTS = Path(__file__).parent / "results"
ASK_HEALTH = """
import sys, time, httpx2
with httpx2.Client(base_url=sys.argv[1], timeout=60) as client:
    while True:
        started = time.perf_counter()
        client.get("/health").raise_for_status()
        print(time.perf_counter() - started)
        time.sleep(0.05)
"""
MODEL: list[str] = []
QUEUE = 16
"""Requests inside at one time in the test of overload; four times as many are offered."""

PATIENCE = 7200.0
"""Seconds that a client and the server give a request: a busy machine loses nothing either."""


def make_rollouts(count: int, seed: int = 0) -> list[Rollout]:
    """Rollouts of the demo world, each with a number of its own in its last step."""
    rng = random.Random(seed)
    found: list[Rollout] = []
    while len(found) < count:
        question = random_question(rng)
        for _ in range(4):
            example = world.solve(question, rng)
            file = io.BytesIO()
            example.image.save(file, "PNG")
            problem = Problem(question=example.question, images=(file.getvalue(),))
            texts = [step.text for step in example.steps]
            texts[-1] += f" This is solution number {len(found)}."
            found.append(Rollout(problem=problem, response="\n\n".join(texts)))
    return found[:count]


@contextlib.contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    arguments = [*MODEL, "--port", "0", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "vrprm_reward.cli", "serve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    url = ""
    for line in process.stderr:
        if found := re.search(r"listening on (http://\S+)", line):
            url = found[1]
            break
    # The log goes on; somebody has to read it.
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    try:
        assert url, "the server did not start"
        yield process, url
    finally:
        process.kill()
        process.wait()
        drain.wait()


async def ready(url: str) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.2)


async def metric(url: str, name: str) -> float:
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextlib.asynccontextmanager
async def watched_health(url: str) -> AsyncIterator[list[float]]:
    """Seconds that /health took, asked again and again by a process that does nothing else."""
    taken: list[float] = []
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", ASK_HEALTH, url, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield taken
    finally:
        asking.terminate()
        printed, _ = await asking.communicate()
        taken.extend(float(line) for line in printed.split())


def mixed_up(rollouts: Sequence[Rollout], scores: Sequence[ProcessScore]) -> int:
    """Scores whose steps are not those of their rollout."""
    return sum(
        score.scored and score.steps != split_steps(rollout.response)
        for rollout, score in zip(rollouts, scores, strict=True)
    )


def quantile(values: Sequence[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def patient_clients(url: str, count: int, *, chunk: int) -> list[RemoteProcessReward]:
    """Clients that wait as long as it takes."""
    return [
        RemoteProcessReward(url, chunk=chunk, timeout=PATIENCE, total_timeout=2 * PATIENCE)
        for _ in range(count)
    ]


async def under_load(rollouts: list[Rollout], clients: int) -> dict[str, Any]:
    """Everyone at once, in small calls: nothing lost, nothing doubled, order kept."""
    with served("--queue", "4096", "--score-seconds", str(PATIENCE)) as (_, url):
        await ready(url)
        before = await metric(url, "vrprm_rollouts_total")
        shares = [rollouts[n::clients] for n in range(clients)]
        rewards = patient_clients(url, clients, chunk=8)
        started = time.perf_counter()
        async with watched_health(url) as health:
            answers = await asyncio.gather(
                *(reward.ascore(share) for reward, share in zip(rewards, shares, strict=True))
            )
        seconds = time.perf_counter() - started
        counted = await metric(url, "vrprm_rollouts_total") - before
        for reward in rewards:
            await reward.aclose()
    scores = [score for answer in answers for score in answer]
    return {
        "rollouts": len(rollouts),
        "clients": clients,
        "seconds": round(seconds, 1),
        "rollouts_per_second": round(len(rollouts) / seconds, 2),
        "scored": sum(score.scored for score in scores),
        "unscored": dict(Counter(score.reason for score in scores if not score.scored)),
        "lost": len(rollouts) - len(scores),
        "doubled": counted - len(rollouts),
        "mixed_up": sum(mixed_up(s, a) for s, a in zip(shares, answers, strict=True)),
        "health_p50_ms": round(1000 * quantile(health, 0.5), 1),
        "health_p99_ms": round(1000 * quantile(health, 0.99), 1),
    }


async def overloaded(rollouts: list[Rollout]) -> dict[str, Any]:
    """Four times what fits at once, by a plain client that does not try again."""
    offered = rollouts[: 4 * QUEUE]
    with served("--queue", str(QUEUE)) as (_, url):
        await ready(url)
        async with plain_client(url) as client:
            answers = await asyncio.gather(*(posted(client, rollout) for rollout in offered))
    refused = [answer.seconds for answer in answers if answer.outcome == "503"]
    return {
        "offered": len(offered),
        "queue": QUEUE,
        "outcomes": counted(answers),
        "refusals_with_retry_after": sum(answer.retry_after for answer in answers),
        "refusal_p50_ms": round(1000 * quantile(refused, 0.5), 1),
        "refusal_max_ms": round(1000 * quantile(refused, 1.0), 1),
    }


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    outcome: str
    """The status, or the name of the error when no answer came."""

    seconds: float
    retry_after: bool = False


def plain_client(url: str) -> httpx2.AsyncClient:
    """A client that tries nothing twice and limits nothing."""
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits)


async def posted(client: httpx2.AsyncClient, rollout: Rollout) -> Answer:
    """One rollout, sent once."""
    started = time.perf_counter()
    try:
        answer = await client.post("/v1/score", json=body_of(rollout))
    except httpx2.HTTPError as error:
        return Answer(type(error).__name__, time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return Answer(str(answer.status_code), seconds, "retry-after" in answer.headers)


def counted(answers: Sequence[Answer]) -> dict[str, int]:
    """How many requests had each outcome."""
    return dict(sorted(Counter(answer.outcome for answer in answers).items()))


def body_of(rollout: Rollout) -> dict[str, Any]:
    (image,) = rollout.problem.images
    assert isinstance(image, bytes)
    url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    item = {
        "question": rollout.problem.question,
        "images": [url],
        "response": rollout.response,
    }
    return {"rollouts": [item]}


async def terminated(rollouts: list[Rollout]) -> dict[str, Any]:
    """SIGTERM in the middle: whoever was let in is answered, others get a 503, status 0."""
    first, late = rollouts[: len(rollouts) // 2], rollouts[len(rollouts) // 2 :]
    with served("--drain-seconds", str(PATIENCE)) as (process, url):
        await ready(url)
        async with plain_client(url) as client:
            before = await metric(url, "vrprm_rollouts_total")
            inside = [asyncio.create_task(posted(client, rollout)) for rollout in first]
            while await metric(url, "vrprm_rollouts_total") == before:
                await asyncio.sleep(0.01)
            let_in = await metric(url, 'vrprm_queue_requests{route="score"')
            process.send_signal(signal.SIGTERM)
            while (await client.get("/ready")).json()["status"] != "draining":
                await asyncio.sleep(0.01)
            refused = await asyncio.gather(*(posted(client, rollout) for rollout in late))
            answers = await asyncio.gather(*inside)
        status = await asyncio.to_thread(process.wait, 60)
    return {
        "sent_before": len(first),
        "inside_at_the_signal": int(let_in),
        "outcomes": counted(answers),
        "sent_after": len(late),
        "outcomes_after": counted(refused),
        "exit_status": status,
    }


def accounted(outcomes: Mapping[str, int], sent: int) -> bool:
    """Whether every request that was sent was answered with its scores or refused."""
    return set(outcomes) <= {"200", "503"} and sum(outcomes.values()) == sent


def report(name: str, found: dict[str, Any]) -> int:
    """Print what held, write everything under `results`, and give the exit status."""
    for what, ok in found["held"].items():
        print("ok  " if ok else "FAIL", what)
    machine = {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cores": os.cpu_count(),
        "load_average_at_the_end": round(os.getloadavg()[0], 1),
    }
    text = json.dumps({"machine": machine, **found}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    return 0 if all(found["held"].values()) else 1


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--profile", help="that of a packaged model if none")
    options = parser.parse_args()
    MODEL.extend(["--model", options.model])
    MODEL.extend(["--profile", options.profile] if options.profile else [])
    rollouts = make_rollouts(max(options.rollouts, 4 * QUEUE))
    load = await under_load(rollouts[: options.rollouts], options.clients)
    print("load", load)
    over = await overloaded(rollouts)
    print("overload", over)
    end = await terminated(rollouts[: 4 * QUEUE])
    print("SIGTERM", end)
    held = {
        "nothing lost, doubled or mixed up": not (load["lost"] or load["mixed_up"])
        and load["doubled"] == 0,
        "everything scored": load["scored"] == options.rollouts,
        "overload: each refused or answered": accounted(over["outcomes"], over["offered"])
        and over["outcomes"].get("200", 0) >= QUEUE,
        "overload: some refused, and told when to come again": over["refusals_with_retry_after"]
        == over["outcomes"].get("503", 0)
        > 0,
        "SIGTERM loses nothing": accounted(end["outcomes"], end["sent_before"])
        and end["outcomes"].get("200", 0) >= end["inside_at_the_signal"] > 0
        and end["outcomes_after"] == {"503": end["sent_after"]}
        and end["exit_status"] == 0,
    }
    found = {"load": load, "overload": over, "sigterm": end, "held": held}
    return report("soak_server", found)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
