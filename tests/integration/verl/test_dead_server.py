"""A reward server that is down when the run starts, or takes requests and never answers."""

import json
import socket

import numpy as np
import pytest

from tests.integration.processes import free_port
from tests.integration.verl.harness import (
    DENSE,
    ScriptedPolicy,
    config_of,
    prompts_of,
    vrprm,
    write_data,
)
from tests.integration.verl.v1 import V1Run
from vrprm_verl.estimators import MaskedShareError
from vrprm_verl.row import ROW

QUESTION = "How many red shapes are there?"


@pytest.fixture(scope="module")
def port():
    """Nothing listens there yet."""
    return free_port()


@pytest.fixture(scope="module")
def run(reward_loops, port):
    config = config_of(
        *DENSE,
        *vrprm(f"http://127.0.0.1:{port}", "+reward.vrprm.timeout=2"),
        "algorithm.adv_estimator=vrprm_leave_one_out",
        "actor_rollout_ref.rollout.n=1",
    )
    policy = ScriptedPolicy({QUESTION: ["The answer is three."]})
    found = V1Run(config, policy, reward_loops.of(config))
    yield found
    found.close()


@pytest.fixture
def silent_server(port):
    """Takes requests and never answers them."""
    with socket.create_server(("127.0.0.1", port)):
        yield


def reason_of(run, shapes, folder, uid):
    """Why the only row of a batch has no score, after everything else about it was looked at."""
    write_data(folder / "train.parquet", [(QUESTION, "three", shapes)])
    prompts = prompts_of(run.config, folder / "train.parquet")
    prompts["uid"] = np.array([uid], dtype=object)
    batch = run.rollout(prompts)
    assert run.states == {uid: "finished"}
    data = run.get(batch, "rm_scores", "extra_fields")
    (rewards,), (fields,) = data["rm_scores"].unbind(), list(data["extra_fields"])
    assert not rewards.any()
    with pytest.raises(MaskedShareError, match="1 of 1"):
        run.advantages(batch)
    row = json.loads(fields["reward_extra_info"][ROW])
    assert row["status"] == "unscored_ours"
    return row["reason"]


def test_a_server_that_is_down_when_the_run_starts_masks_every_row(run, shapes, tmp_path):
    assert reason_of(run, shapes, tmp_path, "down") == "server_unreachable"


def test_a_server_that_never_answers_masks_every_row_at_the_time_limit(
    run, shapes, tmp_path, silent_server
):
    assert reason_of(run, shapes, tmp_path, "slow") in {"server_timeout", "timeout"}
