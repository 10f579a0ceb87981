"""The dense hook in real Ray workers, launched in both ways, and not at all."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.openrlhf.test_estimators import BY_HAND
from tests.integration.processes import ROOT, ServerProcess, free_port

JOB = Path(__file__).with_name("trainer_job.py")
RAY = Path(sys.executable).with_name("ray")
DENSE = {
    "VRPRM_OPENRLHF_URL": "http://127.0.0.1:9",
    "VRPRM_OPENRLHF_MODE": "dense",
    "VRPRM_OPENRLHF_COMBINATION": "gated",  # by leave-one-out, as worked out by hand
    "VRPRM_OPENRLHF_OUTCOME": "exact",
}
BASE = {
    "PYTHONPATH": os.pathsep.join(
        [str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")]
    ),
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONWARNINGS": "ignore",
}


def run(command, **environment):
    return subprocess.run(
        list(map(str, command)),
        env={**os.environ, **BASE, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )


def found_in(ended):
    for line in (ended.stdout + ended.stderr).splitlines():
        _, mark, rest = line.partition("FOUND ")
        if mark:
            return json.loads(rest)
    raise AssertionError(ended.stdout[-4000:] + ended.stderr[-4000:])


def assert_dense(found):
    for estimator, (first, second, scale) in BY_HAND.items():
        assert found[estimator][0] == pytest.approx([scale * x for x in first], abs=1e-5)
        assert found[estimator][1] == pytest.approx([scale * x for x in second], abs=1e-5)
    assert "VRPRM_OPENRLHF_ADVANTAGE=none" in found["gae"]
    assert found["executor"] == "AgentExecutor"


def test_the_environment_hook_of_ray_installs_the_dense_hook_in_every_worker():
    found = found_in(
        run(
            [sys.executable, JOB, *BY_HAND, "gae"],
            RAY_RUNTIME_ENV_HOOK="vrprm_openrlhf.runtime_env_hook",
            **DENSE,
        )
    )
    assert_dense(found)
    # The settings are dense, so the reward function refuses; it is an error that the driver sees.
    assert "--train.agent_func_path" in found["reward function"]


@pytest.fixture
def cluster(tmp_path):
    """A Ray cluster of its own; its address for jobs."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    patience = {"RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "200"}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # sockets: short paths
        command = [
            *(str(RAY), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"),
            *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            f"--ray-client-server-port={free_port()}",  # 10001 may be another run's
            *(f"--temp-dir={folder}", "--disable-usage-stats"),
        ]
        server = ServerProcess(command, tmp_path / "ray.log", **BASE, **patience)
        server.url = f"http://127.0.0.1:{dashboard}"
        try:
            server.wait_until(lambda: server.answers("/api/version"))
            yield server.url
        finally:
            server.terminate()
            server.kill()


def test_ray_job_submit_installs_the_dense_hook_in_every_worker(cluster):
    hook = {"worker_process_setup_hook": "vrprm_openrlhf.install", "env_vars": {**BASE, **DENSE}}
    command = [
        *(RAY, "job", "submit", f"--address={cluster}", "--runtime-env-json", json.dumps(hook)),
        *("--", sys.executable, JOB, *BY_HAND, "gae"),
    ]
    assert_dense(found_in(run(command)))


def test_without_the_hook_a_dense_run_stops_at_once_with_the_instruction():
    found = found_in(run([sys.executable, JOB], **DENSE))
    assert "MissingHookError" in found["executor"]
    assert "RAY_RUNTIME_ENV_HOOK=vrprm_openrlhf.runtime_env_hook" in found["executor"]
