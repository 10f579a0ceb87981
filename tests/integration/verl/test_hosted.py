"""A reward model that verl hosts: a real vLLM behind verl's own router, with GPUs of its own or
sharing the policy's (colocated), under both trainers."""

from types import SimpleNamespace

import pytest

from tests.integration.processes import MODEL
from tests.integration.verl.expected import check_batch
from tests.integration.verl.harness import (
    DENSE,
    ScriptedPolicy,
    config_of,
    prompts_of,
    write_data,
)
from tests.integration.verl.problems import CIRCLES, RED, RESPONSES
from tests.integration.verl.v0 import OVERRIDES, V0Run, rows_of
from tests.integration.verl.v1 import V1Run
from vrprm_reward.process_reward import DEMO_FOLDER


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
        "+reward.vrprm.combination=sum",
        "+reward.vrprm.credit=raw",
        f"+reward.vrprm.model={MODEL}",
        "algorithm.adv_estimator=vrprm_leave_one_out",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory, shapes):
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    write_data(path, [(RED, "three", shapes), (CIRCLES, "three", shapes)])
    return path


@pytest.fixture(scope="module")
def router(vllm_server):
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

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward_loop, "RewardModelManager", Manager)
        yield SimpleNamespace(asleep=asleep, url=f"openai+{vllm_server.url}/v1")
    process.terminate()
    process.join()


def test_a_reward_model_with_gpus_of_its_own_scores_while_rollouts_are_generated(
    reward_loops, router, tokenizer, shapes, data
):
    config = config_of(*OVERRIDES, *hosted(own_pool=True))
    run = V0Run(config, ScriptedPolicy(RESPONSES), reward_loops.of(config))
    router.asleep.clear()
    try:
        batch = run.rollout(prompts_of(config, data))
        check_batch(router.url, tokenizer, shapes, rows_of(batch), run.advantages(batch))
        assert router.asleep == []
    finally:
        run.close()


def test_a_colocated_reward_model_under_the_v0_trainer(
    reward_loops, router, tokenizer, shapes, data
):
    config = config_of(*OVERRIDES, *hosted(own_pool=False))
    run = V0Run(config, ScriptedPolicy(RESPONSES), reward_loops.of(config))
    router.asleep.clear()
    try:
        assert run.reward_loop.reward_loop_worker_handles is None
        batch = run.rollout(prompts_of(config, data))
        check_batch(router.url, tokenizer, shapes, rows_of(batch), run.advantages(batch))
        assert router.asleep == [False, True]
    finally:
        run.close()


def test_a_colocated_reward_model_under_the_v1_trainer_knows_outcomes_by_our_loops(
    reward_loops, router, tokenizer, shapes, metrics_patch, data
):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    config = config_of(*DENSE, *hosted(own_pool=False))
    run = V1Run(config, ScriptedPolicy(RESPONSES), reward_loops.of(config))
    router.asleep.clear()
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
        ids = [row.tolist() for row in found["responses"].unbind()]
        rows = list(zip(found["uid"], ids, found["rm_scores"].unbind(), strict=True))
        check_batch(router.url, tokenizer, shapes, rows, advantages)
        assert router.asleep == [False, True]
        metrics = run.metrics(batch)
        assert (metrics["vrprm/masked_share"], metrics["vrprm/outcome/mean"]) == (0, 0.5)
    finally:
        run.close()
