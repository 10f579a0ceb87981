"""The V0 trainer's chain: agent loop manager, reward loop, `DataProto`, advantage step."""

from typing import Any

import ray
import torch
from omegaconf import DictConfig
from verl import DataProto

OVERRIDES = (
    "trainer.use_v1=False",
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class="
    "vrprm_verl.agent_loop_manager.DenseAgentLoopManager",
    "algorithm.adv_estimator=vrprm_leave_one_out",
)


def rows_of(batch: DataProto) -> list[tuple[str, list[int], torch.Tensor]]:
    """For each response its uid, its token ids, and `rm_scores` with their padding."""
    responses = batch.batch["responses"]
    counts = batch.batch["attention_mask"][:, -responses.shape[-1] :].sum(-1).tolist()
    return [
        (uid, ids[:count].tolist(), rewards)
        for uid, ids, count, rewards in zip(
            batch.non_tensor_batch["uid"], responses, counts, batch.batch["rm_scores"], strict=True
        )
    ]


class V0Run:
    """verl's V0 chain without its actor.

    Args:
        config: verl's whole configuration.
        policy: writes the responses.
        reward_loop: verl's manager of its reward workers.
    """

    def __init__(self, config: DictConfig, policy: Any, reward_loop: Any) -> None:
        from verl.experimental.agent_loop import AgentLoopManager
        from verl.utils.import_utils import load_class_from_fqn

        self.config = config
        self.reward_loop = reward_loop
        name = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
        manager = load_class_from_fqn(name, "AgentLoopManager") if name else AgentLoopManager
        self.agents = manager.create(
            config=config,
            llm_client=policy,
            teacher_client=None,
            reward_loop_worker_handles=reward_loop.reward_loop_worker_handles,
        )

    def close(self) -> None:
        """End the agent workers."""
        for worker in self.agents.agent_loop_workers:
            ray.kill(worker)

    def rollout(self, batch_dict: dict[str, Any]) -> DataProto:
        """Generate and score a batch, and put it together as the trainer does."""
        from verl.trainer.ppo.ray_trainer import RayPPOTrainer

        n = self.config.actor_rollout_ref.rollout.n
        batch = DataProto.from_single_dict(dict(batch_dict))
        gen = RayPPOTrainer._get_gen_batch(None, batch)
        gen.meta_info["global_steps"] = 1
        output = self.agents.generate_sequences(gen.repeat(repeat_times=n, interleave=True))
        batch = batch.repeat(repeat_times=n, interleave=True).union(output)
        if "rm_scores" not in batch.batch:  # the colocated path
            batch = batch.union(self.reward_loop.compute_rm_score(batch))
        return batch

    def advantages(self, batch: DataProto) -> torch.Tensor:
        """verl's own advantage step."""
        from verl.trainer.ppo.ray_trainer import compute_advantage

        batch.batch["token_level_scores"] = batch.batch["rm_scores"]
        batch.batch["token_level_rewards"] = batch.batch["rm_scores"]
        algorithm = self.config.algorithm
        done = compute_advantage(
            batch,
            adv_estimator=algorithm.adv_estimator,
            num_repeat=self.config.actor_rollout_ref.rollout.n,
            config=algorithm,
        )
        found: torch.Tensor = done.batch["advantages"]
        return found

    def metrics(self, batch: DataProto) -> dict[str, float]:
        """What verl's trainer logs of a batch that has its advantages."""
        from verl.trainer.ppo import ray_trainer

        found: dict[str, float] = ray_trainer.compute_data_metrics(batch=batch, use_critic=False)
        return found
