"""The examples run as they stand."""

import asyncio
import json
import os
import random
import shlex
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.integration.processes import (
    ROOT,
    START_SECONDS,
    VLLM_ON_A_CPU,
    ServerProcess,
    free_port,
)
from vrprm_reward import Problem, Rollout, load_process_reward
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.demo import world
from vrprm_reward.demo.evaluate import held_out, rollout_of
from vrprm_reward.images import ImageSettings
from vrprm_reward.process_reward import DEMO_FOLDER

EXAMPLES = ROOT / "examples"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """`vrprm-reward` and `python` as in an environment that the package is installed in."""
    for name, arguments in (("vrprm-reward", "-m vrprm_reward.cli "), ("python", "")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "adapters")]))
    monkeypatch.setenv("PORT", str(free_port()))
    return tmp_path


def best_named_by(text: str) -> str:
    """What `score_over_http.py` says, when it scored everything."""
    return next(line for line in text.splitlines() if line.startswith("best mean: "))


def test_a_server_and_its_client_on_one_machine(commands):
    done = subprocess.run(
        [EXAMPLES / "serving/one_machine.sh"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert best_named_by(done.stdout)
    assert "SIGTERM: finishing what was let in" in done.stderr


def test_a_server_that_cannot_start_ends_the_example_and_is_not_waited_for(commands):
    done = subprocess.run(
        [EXAMPLES / "serving/one_machine.sh", commands / "no-checkpoint"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "no-checkpoint" in done.stderr


@pytest.fixture
def fleet(commands, monkeypatch):
    """`vllm_fleet.sh` with two replicas of the demo, ready."""
    monkeypatch.setenv("FIRST_PORT", str(free_port()))
    monkeypatch.setenv("LOGS", str(commands))
    monkeypatch.setenv("VLLM_OPTIONS", "--dtype float32 --enforce-eager --max-num-seqs 16")
    for name, value in VLLM_ON_A_CPU.items():
        monkeypatch.setenv(name, value)
    script = [str(EXAMPLES / "serving/vllm_fleet.sh"), str(DEMO_FOLDER), "demo", "2"]
    server = ServerProcess(script, commands / "fleet.log")
    server.url = f"http://127.0.0.1:{os.environ['PORT']}"
    try:
        server.wait_until(lambda: server.answers("/ready"), 2 * START_SECONDS)
        yield server
    finally:
        server.kill()


def test_a_fleet_scores_on_when_one_of_its_two_replicas_is_killed(fleet, commands):
    client = [sys.executable, EXAMPLES / "serving/score_over_http.py", fleet.url]
    done = subprocess.run(client, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + fleet.text
    assert best_named_by(done.stdout)

    rollouts = [rollout_of(example) for example in held_out(30, seed=9)]
    with closing(RemoteProcessReward(fleet.url, chunk=2, thinking=True)) as reward:
        wanted = reward.score(rollouts)
        assert all(score.scored for score in wanted)
        before = rollouts_scored_by(fleet)
        scoring = asyncio.run(killing_one(fleet, reward, rollouts, before + 4))
        assert rollouts_scored_by(fleet) - before == len(rollouts)
    for ours, theirs in zip(scoring, wanted, strict=True):
        assert (ours.status, ours.detail, ours.steps) == ("scored", None, theirs.steps), fleet.text
        if ours.thinking == theirs.thinking:
            assert ours.p_correct == pytest.approx(theirs.p_correct, abs=1e-3)

    fleet.process.send_signal(signal.SIGTERM)
    fleet.process.wait(120)
    assert "SIGTERM: finishing what was let in" in fleet.text
    logs = [(commands / f"vllm-{number}.log").read_text() for number in range(2)]
    assert all("POST /v1/chat/completions" in log for log in logs)


async def killing_one(fleet, reward, rollouts, scored):
    """Scores of rollouts; when so many are counted, the first replica ends as by `kill -9`."""
    scoring = asyncio.create_task(reward.ascore(rollouts))
    while (counted := await asyncio.to_thread(rollouts_scored_by, fleet)) < scored:
        await asyncio.sleep(0.02)
    kill_9(fleet, port=os.environ["FIRST_PORT"])
    assert not scoring.done(), f"{counted} were scored before there was anything to lose"
    scores = await scoring
    await reward.aclose()
    return scores


def rollouts_scored_by(server) -> float:
    lines = httpx2.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith("vrprm_rollouts_total"))


def kill_9(server, *, port):
    """End the process with that port on its command line, and all that it started."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    (found,) = (child for child in children if port in child.cmdline())
    for each in (*found.children(recursive=True), found):
        each.kill()


def write_rows(folder: Path, count: int) -> Path:
    rng = random.Random(3)
    path = folder / "rollouts.jsonl"
    with path.open("w") as file:
        for number in range(count):
            rollout = rollout_of(world.random_example(rng))
            (image,) = rollout.problem.images
            image.save(folder / f"{number}.png")
            row = {
                "id": f"row-{number}",
                "question": rollout.problem.question,
                "images": ["missing.png" if number == 7 else f"{number}.png"],
                "response": rollout.response,
            }
            file.write(json.dumps(row) + "\n")
    return path


def test_a_large_file_is_scored_by_several_ray_workers(commands, monkeypatch):
    # Ray makes its workers yield to whatever else runs, here to nothing that should go first.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    source, count = write_rows(commands, 48), 48
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", EXAMPLES / "ray_data/score_file.py"),
            *(source, commands / "scores", "--workers", "2", "--batch", "8"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    written = [
        json.loads(line)
        for path in sorted((commands / "scores").glob("*.json"))
        for line in path.read_text().splitlines()
    ]
    assert sorted(row["id"] for row in written) == sorted(f"row-{n}" for n in range(count))
    by_id = {row["id"]: row for row in written}
    assert by_id["row-7"]["status"] == "unscored_ours"
    assert by_id["row-7"]["reason"] == "image_missing"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    assert_same_as_in_this_process(by_id, rows[:5], commands)


def assert_same_as_in_this_process(by_id, rows, folder):
    reward = load_process_reward("demo", images=ImageSettings(root=folder))
    rollouts = [
        Rollout(
            problem=Problem(question=row["question"], images=row["images"]),
            response=row["response"],
        )
        for row in rows
    ]
    for row, score in zip(rows, reward.score(rollouts), strict=True):
        found = by_id[row["id"]]
        assert found["p_correct"] == pytest.approx(score.p_correct, abs=1e-4)
        assert found["starts"] == [step.start for step in score.steps]
    reward.close()
