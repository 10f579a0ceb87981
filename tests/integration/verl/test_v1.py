"""The V1 trainer, from the data set to the advantages, with scores of a running reward server."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo import core_algos

from tests.integration.verl.expected import check_batch, expected_rewards
from tests.integration.verl.harness import (
    DENSE,
    ScriptedPolicy,
    config_of,
    padded,
    prompts_of,
    vrprm,
    write_data,
)
from tests.integration.verl.problems import CIRCLES, RED, RESPONSES
from tests.integration.verl.v1 import V1Run
from vrprm_verl.row import ROW

SLOW = "How many squares are there?"
ANSWERS = {**RESPONSES, SLOW: ["The answer is one.", "Late: the answer is two."]}


@pytest.fixture(scope="module")
def config(reward_server):
    return config_of(
        *DENSE, *vrprm(reward_server.url), "algorithm.adv_estimator=vrprm_leave_one_out"
    )


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """A file; the late response comes once it is there."""
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def run(reward_loops, config, gate):
    policy = ScriptedPolicy(ANSWERS, gates={"Late": gate})
    found = V1Run(config, policy, reward_loops.of(config))
    yield found
    found.close()


@pytest.fixture(scope="module")
def batch(run, config, shapes, tmp_path_factory):
    """Two problems with two rollouts each, scored."""
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    write_data(path, [(RED, "three", shapes), (CIRCLES, "three", shapes)])
    return run.rollout(prompts_of(config, path))


def rows_of(run, batch):
    """For each output: its group, text, ids, dense rewards, and the row that the manager wrote."""
    data = run.get(batch, "uid", "responses", "rm_scores", "extra_fields")
    return [
        {
            "uid": uid,
            "ids": ids.tolist(),
            "rewards": rewards,
            "info": fields["reward_extra_info"],
            "fields": fields,
        }
        for uid, ids, rewards, fields in zip(
            list(data["uid"]),
            data["responses"].unbind(),
            data["rm_scores"].unbind(),
            list(data["extra_fields"]),
            strict=True,
        )
    ]


def test_rewards_and_advantages_equal_tensors_worked_out_by_hand(
    run, batch, reward_server, tokenizer, shapes
):
    assert run.states == {"problem0": "finished", "problem1": "finished"}
    rows = [(row["uid"], row["ids"], row["rewards"]) for row in rows_of(run, batch)]
    check_batch(reward_server.url, tokenizer, shapes, rows, run.advantages(batch))


def test_every_row_has_the_same_names_and_nothing_of_ours_is_left_in_its_fields(run, batch):
    rows = rows_of(run, batch)
    names = {tuple(row["info"]) for row in rows}
    assert len(names) == 1
    for name in names.pop():
        assert np.array([row["info"][name] for row in rows]).shape == (4,)
    assert not any("vrprm_response_mask" in row["fields"] for row in rows)
    assert {row["info"]["acc"] for row in rows} == {0.0, 1.0}


def test_the_image_that_is_judged_is_the_image_of_the_problem(
    run, config, reward_server, tokenizer, shapes, other, tmp_path
):
    write_data(tmp_path / "one.parquet", [(RED, "three", shapes), (CIRCLES, "three", other)])
    write_data(tmp_path / "two.parquet", [(RED, "three", other), (CIRCLES, "three", shapes)])
    scores = []
    for name in ("one", "two"):
        prompts = prompts_of(config, tmp_path / f"{name}.parquet")
        prompts["uid"] = np.array([f"{name}-red", f"{name}-circles"], dtype=object)
        rows = rows_of(run, run.rollout(prompts))
        images = {"red": shapes if name == "one" else other}
        images["circles"] = other if name == "one" else shapes
        for row in rows:
            kind = row["uid"].split("-")[1]
            question = RED if kind == "red" else CIRCLES
            dense, _ = expected_rewards(
                reward_server.url, tokenizer, row["ids"], images[kind], question, "three"
            )
            torch.testing.assert_close(row["rewards"], dense, atol=1e-4, rtol=0)
        scores.append({tokenizer.decode(r["ids"]): r["info"]["score"] for r in rows})
    assert scores[0].keys() == scores[1].keys()
    assert all(scores[0][text] != scores[1][text] for text in scores[0])


def test_a_rollout_is_scored_while_another_is_still_being_generated(
    run, config, gate, shapes, tmp_path
):
    write_data(tmp_path / "slow.parquet", [(SLOW, "one", shapes)])
    prompts = prompts_of(config, tmp_path / "slow.parquet")
    prompts["uid"] = np.array(["slow"], dtype=object)
    with ThreadPoolExecutor() as threads:
        rollout = threads.submit(run.rollout, prompts)
        try:
            end = time.monotonic() + 120
            while not (done := [key for key in run.tags() if key.startswith("slow_")]):
                assert time.monotonic() < end, run.tags()
                time.sleep(0.05)
            state = run.tags()["slow"]["status"]
        finally:
            gate.touch()
        batch = rollout.result()
    assert (len(done), state) == (1, "running")
    assert len(batch.keys) == 2


def test_validation_rows_are_rewarded_by_their_outcome_and_have_acc(run, config, shapes, tmp_path):
    write_data(tmp_path / "val.parquet", [(RED, "three", shapes)], split="test")
    prompts = prompts_of(config, tmp_path / "val.parquet")
    prompts["uid"] = np.array(["validation"], dtype=object)
    rows = rows_of(run, run.rollout(prompts, partition="val"))
    assert rows
    for row in rows:
        judged = json.loads(row["info"][ROW])
        assert (judged["validation"], judged["p_correct"]) == (True, [])
        assert row["info"]["acc"] == row["rewards"].sum().item()


@pytest.fixture(scope="module")
def tensors(run, batch):
    data = run.get(batch, "rm_scores", "response_mask", "uid")
    return (
        padded(data["rm_scores"].unbind()),
        padded(data["response_mask"].unbind()),
        np.array(list(data["uid"]), dtype=object),
    )


def test_verls_estimators_that_keep_positions_take_the_dense_tensor(tensors):
    rewards, mask, _ = tensors
    scalar = torch.zeros_like(rewards)
    scalar[torch.arange(4), mask.sum(-1) - 1] = rewards.sum(-1)

    def gae(tensor):
        return core_algos.compute_gae_advantage_return(
            token_level_rewards=tensor,
            values=torch.zeros_like(tensor),
            response_mask=mask,
            gamma=1.0,
            lam=1.0,
        )[1]

    to_go = rewards.flip(-1).cumsum(-1).flip(-1) * mask
    torch.testing.assert_close(gae(rewards) * mask, to_go)
    config = OmegaConf.create({"gamma": 1.0})
    _, plus = core_algos.get_adv_estimator_fn("reinforce_plus_plus")(
        token_level_rewards=rewards, response_mask=mask, config=config
    )
    torch.testing.assert_close(plus, to_go)
    remax, _ = core_algos.get_adv_estimator_fn("remax")(
        token_level_rewards=rewards,
        reward_baselines=torch.full((4,), 0.25),
        response_mask=mask,
        config=config,
    )
    torch.testing.assert_close(remax, (to_go - 0.25) * mask)
    assert not torch.equal(gae(rewards), gae(scalar))


@pytest.mark.parametrize("name", ["optimal_token_baseline", "tir_optimal_token_baseline"])
def test_verls_optimal_token_baselines_take_the_dense_tensor(tensors, name):
    rewards, mask, uid = tensors
    found, _ = core_algos.get_adv_estimator_fn(name)(
        token_level_rewards=rewards,
        response_mask=mask,
        index=uid,
        old_log_probs=torch.full_like(rewards, 0.5).log(),
        sum_pi_squared=torch.full_like(rewards, 0.75),
    )
    # Every token weighs 1 - 2 * 0.5 + 0.75, so that the weights of two responses are equal at every
    # token: the baseline is their mean, and 0 where only one of them goes on.
    to_go = rewards.flip(-1).cumsum(-1).flip(-1) * mask
    expected = torch.zeros_like(rewards)
    for group in set(uid):
        a, b = np.where(uid == group)[0]
        both = mask[a] * mask[b]
        mean = both * (to_go[a] + to_go[b]) / 2
        expected[a], expected[b] = to_go[a] - mean, to_go[b] - mean
    torch.testing.assert_close(found, expected)
    assert any(len(row[keep].unique()) > 2 for row, keep in zip(found, mask.bool(), strict=True))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("remax", "reward_baselines"),
        ("optimal_token_baseline", "sum_pi_squared"),
        ("tir_optimal_token_baseline", "sum_pi_squared"),
    ],
)
def test_verls_v1_trainer_hands_some_of_its_own_estimators_too_little(run, batch, name, missing):
    with pytest.raises((AssertionError, TypeError), match=missing):
        run.advantages(batch, name)


def by_steps(rewards, mask, values):
    """(bs, response_len): one value a step, on every token up to the step's last one; then 0."""
    found = torch.zeros_like(rewards)
    for row, of_row in enumerate(values):
        ends = rewards[row].nonzero().flatten().tolist()
        for token in range(int(mask[row].sum())):
            step = sum(end < token for end in ends)
            found[row, token] = of_row[step] if step < len(ends) else 0.0
    return found


def test_our_other_estimators_give_what_is_worked_out_by_hand_in_verls_own_advantage_step(
    run, batch, tensors
):
    rewards, mask, uid = tensors
    process, group_mean = [None] * 4, [None] * 4
    for group in set(uid):
        a, b = np.where(uid == group)[0]
        steps = {row: rewards[row][rewards[row] != 0].tolist() for row in (a, b)}
        # The last of each stands on the token that ends the response.
        pool = steps[a][:-1] + steps[b][:-1]
        ends = [steps[a][-1], steps[b][-1]]
        spread = stdev(ends)
        totals = [sum(steps[a]), sum(steps[b])]
        for row in (a, b):
            normal = [(r - mean(pool)) / stdev(pool) for r in steps[row][:-1]]
            normal.append((steps[row][-1] - mean(ends)) / spread if spread > 1e-6 else 0.0)
            process[row] = [sum(normal[k:]) for k in range(len(normal))]
            group_mean[row] = [(sum(steps[row]) - mean(totals)) / stdev(totals)] * len(normal)
    for name, values in [("vrprm_process_grpo", process), ("vrprm_group_mean", group_mean)]:
        found = padded(run.advantages(batch, name))
        torch.testing.assert_close(found, by_steps(rewards, mask, values), atol=1e-3, rtol=1e-3)


def test_verls_grpo_sums_the_dense_rewards_so_that_positions_are_lost(tensors):
    rewards, mask, uid = tensors
    scalar = torch.zeros_like(rewards)
    scalar[torch.arange(4), mask.sum(-1) - 1] = rewards.sum(-1)
    dense, plain = (
        core_algos.compute_grpo_outcome_advantage(
            token_level_rewards=each, response_mask=mask, index=uid
        )[0]
        for each in (rewards, scalar)
    )
    torch.testing.assert_close(dense, plain)
    for row, keep in zip(dense, mask.bool(), strict=True):
        assert len(row[keep].unique()) == 1


def test_the_score_of_a_row_is_the_sum_of_its_dense_rewards(run, batch):
    for row in rows_of(run, batch):
        assert row["rewards"].sum().item() == pytest.approx(row["info"]["score"], abs=1e-5)


def test_the_training_metrics_reach_verls_logger_through_the_metrics_patch(
    run, batch, metrics_patch
):
    run.advantages(batch)
    metrics = run.metrics(batch)
    assert metrics["vrprm/masked_share"] == 0
    assert 0 < metrics["vrprm/p_correct/mean"] < 1
    assert metrics["vrprm/steps/max"] == 3
    assert metrics["vrprm/outcome/mean"] == 0.5
    assert metrics["vrprm/reward/right_outcome"] > metrics["vrprm/reward/wrong_outcome"]
    assert "critic/score/mean" in metrics


def test_the_reward_loop_can_be_asked_from_a_running_event_loop(config, reward_server):
    """`run_single` is awaited on verl's loop and does its work on another."""
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    async def made():
        return RewardLoopWorker(config, None)

    worker = asyncio.run(made())
    assert type(worker.reward_manager).__name__ == "VRPRMRewardManager"
