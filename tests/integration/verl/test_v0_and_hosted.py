"""The V0 trainer, the colocated path of both trainers, verl's own reward servers (real vLLM)."""

from types import SimpleNamespace

import pytest
import torch

from tests.integration.processes import MODEL
from tests.integration.verl.expected import expected_advantages, expected_rewards
from tests.integration.verl.harness import (
    DENSE,
    ScriptedPolicy,
    config_of,
    prompts_of,
    vrprm,
    write_data,
)
from tests.integration.verl.v0 import V0Run
from tests.integration.verl.v1 import V1Run
from vrprm_reward.process_reward import DEMO_FOLDER

RED = "How many red shapes are there?"
CIRCLES = "How many circles are there?"
RESPONSES = {
    RED: [
        "The number of red shapes is three.\n\nThe answer is three.",
        "The number of red shapes is two.\n\nTwo it is.\n\nThe answer is two.",
    ],
    CIRCLES: [
        "Counting the circles gives three.\n\nThe answer is three.",
        "The answer is one.",
    ],
}
V0 = (
    "trainer.use_v1=False",
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class="
    "vrprm_verl.agent_loop_manager.DenseAgentLoopManager",
    "algorithm.adv_estimator=vrprm_leave_one_out",
)


def hosted(own_pool):
    """The lines for a reward model that verl hosts."""
    return (
        "reward.reward_manager.name=vrprm",
        "reward.reward_model.enable=True",
        f"reward.reward_model.enable_resource_pool={own_pool}",
        "reward.reward_model.n_gpus_per_node=1",
        "reward.reward_model.nnodes=1",
        f"reward.reward_model.model_path={DEMO_FOLDER}",
        "reward.custom_reward_function.path=pkg://vrprm_verl.score",
        "reward.custom_reward_function.name=compute_score",
        "+reward.vrprm.outcome=exact",
        "+reward.vrprm.credit=raw",
        f"+reward.vrprm.model={MODEL}",
        "algorithm.adv_estimator=vrprm_leave_one_out",
    )


@pytest.fixture(scope="module")
def tokenizer():
    from verl.utils import hf_tokenizer

    return hf_tokenizer(str(DEMO_FOLDER))


@pytest.fixture(scope="module")
def data(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    write_data(path, [(RED, "three", shapes), (CIRCLES, "three", shapes)])
    return path


@pytest.fixture
def router(vllm_server, monkeypatch):
    """verl's router before the real vLLM; only the GPUs on which verl starts one are missing."""
    from verl.experimental.reward_loop import reward_loop
    from verl.experimental.reward_loop.router.naive_router import launch_router_process

    address, process = launch_router_process(worker_urls=[vllm_server.url])
    asleep = []

    class Manager:
        def __init__(self, config, resource_pool=None):
            self.get_router_address = lambda: address
            self.wake_up = lambda: asleep.append(False)
            self.sleep = lambda: asleep.append(True)

    monkeypatch.setattr(reward_loop, "RewardModelManager", Manager)
    yield SimpleNamespace(address=address, asleep=asleep)
    process.terminate()
    process.join()


def check(url, tokenizer, shapes, batch, advantages):
    """Every row of a V0 batch against tensors worked out by hand."""
    width = batch.batch["responses"].shape[-1]
    counts = batch.batch["attention_mask"][:, -width:].sum(-1).tolist()
    uids = list(batch.non_tensor_batch["uid"])
    dense, ends = [], []
    for index, (uid, count) in enumerate(zip(uids, counts, strict=True)):
        ids = batch.batch["responses"][index, :count].tolist()
        question = RED if uid == "problem0" else CIRCLES
        expected, tokens = expected_rewards(url, tokenizer, ids, shapes, question, "three")
        found = batch.batch["rm_scores"][index]
        torch.testing.assert_close(found[:count], expected, atol=1e-4, rtol=0)
        assert not found[count:].any()
        dense.append(expected)
        ends.append(tokens)
    by_hand = expected_advantages(uids, counts, dense, ends)
    for row, count, expected in zip(advantages, counts, by_hand, strict=True):
        torch.testing.assert_close(row[:count], expected, atol=1e-3, rtol=0)


def test_the_v0_trainer_credits_every_token_by_its_step(
    cluster, reward_server, tokenizer, shapes, data
):
    config = config_of(*V0, *vrprm(reward_server.url))
    run = V0Run(config, ScriptedPolicy(RESPONSES))
    try:
        batch = run.rollout(prompts_of(config, data))
        check(reward_server.url, tokenizer, shapes, batch, run.advantages(batch))
        assert "vrprm_response_mask" not in batch.non_tensor_batch
        assert "vrprm_row" in batch.meta_info["reward_extra_keys"]
    finally:
        run.close()


def test_a_real_vllm_behind_verls_router_scores_while_rollouts_are_generated(
    cluster, router, vllm_server, tokenizer, shapes, data
):
    config = config_of(*V0, *hosted(own_pool=True))
    run = V0Run(config, ScriptedPolicy(RESPONSES))
    try:
        batch = run.rollout(prompts_of(config, data))
        url = f"openai+{vllm_server.url}/v1"
        check(url, tokenizer, shapes, batch, run.advantages(batch))
        assert router.asleep == []
    finally:
        run.close()


def test_a_colocated_reward_model_under_the_v0_trainer(
    cluster, router, vllm_server, tokenizer, shapes, data
):
    config = config_of(*V0, *hosted(own_pool=False))
    run = V0Run(config, ScriptedPolicy(RESPONSES))
    try:
        assert run.reward_loop.reward_loop_worker_handles is None
        batch = run.rollout(prompts_of(config, data))
        url = f"openai+{vllm_server.url}/v1"
        check(url, tokenizer, shapes, batch, run.advantages(batch))
        assert router.asleep == [False, True]
    finally:
        run.close()


def test_a_colocated_reward_model_under_the_v1_trainer_knows_outcomes_by_our_loops(
    cluster, router, vllm_server, tokenizer, shapes, data
):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    config = config_of(*DENSE, *hosted(own_pool=False))
    run = V1Run(config, ScriptedPolicy(RESPONSES))
    try:
        batch = run.rollout(prompts_of(config, data))
        trainer = SimpleNamespace(
            reward_loop_manager=run.reward_loop,
            tokenizer=tokenizer,
            _lengths_to_mask=PPOTrainer._lengths_to_mask,
        )
        PPOTrainer._compute_reward_colocate(trainer, batch)
        advantages = run.advantages(batch)
        found = run.get(batch, "uid", "responses", "rm_scores")
        uids, ids = list(found["uid"]), [row.tolist() for row in found["responses"].unbind()]
        dense, ends = [], []
        for uid, row, rewards in zip(uids, ids, found["rm_scores"].unbind(), strict=True):
            question = RED if uid == "problem0" else CIRCLES
            url = f"openai+{vllm_server.url}/v1"
            expected, tokens = expected_rewards(url, tokenizer, row, shapes, question, "three")
            torch.testing.assert_close(rewards, expected, atol=1e-4, rtol=0)
            dense.append(expected)
            ends.append(tokens)
        by_hand = expected_advantages(uids, [len(row) for row in ids], dense, ends)
        for row, expected in zip(advantages, by_hand, strict=True):
            torch.testing.assert_close(row, expected, atol=1e-3, rtol=0)
    finally:
        run.close()
