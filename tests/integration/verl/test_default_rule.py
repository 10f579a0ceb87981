"""The default rule in the V1 trainer: a wrong answer earns nothing, and is still learnt from."""

import json

import pytest
import torch

from tests.integration.verl.harness import DENSE, ScriptedPolicy, config_of, prompts_of, write_data
from tests.integration.verl.problems import CIRCLES, RED, RESPONSES
from tests.integration.verl.v1 import V1Run
from vrprm_verl.row import ROW


@pytest.fixture(scope="module")
def config(reward_server):
    return config_of(
        *DENSE,
        "reward.reward_manager.name=vrprm",
        f"+reward.vrprm.url={reward_server.url}",
        "+reward.vrprm.outcome=exact",
        "algorithm.adv_estimator=vrprm_leave_one_out",
    )


@pytest.fixture(scope="module")
def run(reward_loops, config):
    found = V1Run(config, ScriptedPolicy(RESPONSES), reward_loops.of(config))
    yield found
    found.close()


def test_a_wrong_answer_is_told_from_a_masked_row_and_pushed_down(run, config, shapes, tmp_path):
    write_data(tmp_path / "train.parquet", [(RED, "three", shapes), (CIRCLES, "three", shapes)])
    batch = run.rollout(prompts_of(config, tmp_path / "train.parquet"))
    data = run.get(batch, "uid", "rm_scores", "extra_fields")
    infos = [fields["reward_extra_info"] for fields in data["extra_fields"]]
    judged = [json.loads(info[ROW]) for info in infos]
    assert sorted(info["acc"] for info in infos) == [0.0, 0.0, 1.0, 1.0]
    found = zip(
        list(data["uid"]),
        infos,
        judged,
        data["rm_scores"].unbind(),
        run.advantages(batch),  # half of the rows are wrong: taken for masked, they would stop it
        strict=True,
    )
    first = {}
    for uid, info, row, rewards, advantages in found:
        assert rewards.nonzero().flatten().tolist() == [*row["tokens"], row["last"]]
        assert float(rewards[row["last"]]) == pytest.approx(info["acc"])
        assert (info["vrprm_masked"], info["score"] == 0) == (0, info["acc"] == 0)
        first[uid, info["acc"]] = rewards.sum().item(), advantages[0].item()
    for uid in ("problem0", "problem1"):
        total, pushed_up = first[uid, 1.0]
        nothing, pushed_down = first[uid, 0.0]
        assert nothing < 1e-20
        assert 1 < total <= 2
        assert torch.tensor([pushed_up, -pushed_down]).allclose(torch.tensor(total), atol=1e-3)
