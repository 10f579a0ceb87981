"""A reward server that is down when the run starts, or takes requests and never answers."""

import json
import socket

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


@pytest.mark.parametrize("how", ["down at the start", "slow"])
def test_a_server_that_is_down_or_slow_masks_every_row_within_the_time_limit(
    cluster, shapes, tmp_path, how, slow_server
):
    write_data(tmp_path / "train.parquet", [(QUESTION, "three", shapes)])
    url = slow_server if how == "slow" else f"http://127.0.0.1:{free_port()}"
    config = config_of(
        *DENSE,
        *vrprm(url, "+reward.vrprm.timeout=2"),
        "algorithm.adv_estimator=vrprm_leave_one_out",
        "actor_rollout_ref.rollout.n=1",
    )
    run = V1Run(config, ScriptedPolicy({QUESTION: ["The answer is three."]}))
    try:
        batch = run.rollout(prompts_of(config, tmp_path / "train.parquet"), partition=how[:4])
        data = run.get(batch, "rm_scores", "extra_fields")
        (rewards,), (fields,) = data["rm_scores"].unbind(), list(data["extra_fields"])
        row = json.loads(fields["reward_extra_info"][ROW])
        assert row["reason"] in {"server_unreachable", "server_timeout", "timeout"}
        assert not rewards.any()
        assert run.states == {"problem0": "finished"}
        with pytest.raises(MaskedShareError, match="1 of 1"):
            run.advantages(batch)
    finally:
        run.close()


@pytest.fixture
def slow_server():
    """Takes requests and never answers them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
