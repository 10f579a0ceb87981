"""The examples run as they stand."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import ROOT, START_SECONDS, ServerProcess, free_port
from vrprm_reward import Problem, Rollout, load_process_reward
from vrprm_reward.demo import world
from vrprm_reward.demo.evaluate import rollout_of
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
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
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


def test_a_fleet_of_two_vllm_replicas_behind_a_reward_server(commands, monkeypatch):
    first = free_port()
    monkeypatch.setenv("VLLM_PORT", str(first))
    monkeypatch.setenv("LOGS", str(commands))
    monkeypatch.setenv("VLLM_OPTIONS", "--dtype float32 --enforce-eager --max-num-seqs 16")
    for name, value in (("VLLM_CPU_KVCACHE_SPACE", "1"), ("VLLM_CPU_OMP_THREADS_BIND", "nobind")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = [str(EXAMPLES / "serving/vllm_fleet.sh"), str(DEMO_FOLDER), "demo", "2"]
    fleet = ServerProcess(script, commands / "fleet.log")
    fleet.url = f"http://127.0.0.1:{os.environ['PORT']}"
    try:
        fleet.wait_until(lambda: fleet.answers("/ready"), 2 * START_SECONDS)
        client = [sys.executable, EXAMPLES / "serving/score_over_http.py", fleet.url]
        done = subprocess.run(client, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr + fleet.text
        assert best_named_by(done.stdout)
        fleet.process.send_signal(signal.SIGTERM)
        fleet.process.wait(120)
    finally:
        fleet.kill()
    assert "SIGTERM: finishing what was let in" in fleet.text
    logs = [(commands / f"vllm-{number}.log").read_text() for number in range(2)]
    assert all("POST /v1/chat/completions" in log for log in logs)


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


def test_a_large_file_is_scored_by_several_ray_workers(commands):
    source, count = write_rows(commands, 120), 120
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", EXAMPLES / "ray_data/score_file.py"),
            *(source, commands / "scores", "--workers", "2", "--batch", "16"),
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
