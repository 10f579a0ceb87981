"""The default rule in the V1 trainer: a wrong answer earns nothing, and is still learnt from."""

import itertools
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
        "algorithm.adv_estimator=vrprm_sound_prefix",
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
        # Steps earn what they leave of the smallest probability; the end takes it from the wrong.
        least = min(row["p_correct"])
        earned = info["acc"] * least
        assert float(rewards[row["last"]]) == pytest.approx(earned - least, abs=1e-6)
        assert (info["vrprm_masked"], info["score"] == 0) == (0, info["acc"] == 0)
        assert info["score"] == pytest.approx(earned)
        first[uid, info["acc"]] = rewards.sum().item(), advantages[0].item()
        # What stands behind a step is learnt from as much as it was believed.
        places = [*row["tokens"], row["last"]]
        weights = [1, *itertools.accumulate(row["p_correct"], min)]
        expected = [advantages[0].item() * weight for weight in weights]
        assert advantages[places].tolist() == pytest.approx(expected, abs=1e-5)
    for uid in ("problem0", "problem1"):
        total, pushed_up = first[uid, 1.0]
        nothing, pushed_down = first[uid, 0.0]
        assert nothing == pytest.approx(0, abs=1e-6)
        assert 0 < total <= 1
        assert torch.tensor([pushed_up, -pushed_down]).allclose(torch.tensor(total), atol=1e-3)
