"""The V0 trainer's chain: agent loop manager, reward loop, `DataProto`, advantage step."""

from typing import Any

import ray
import torch
from omegaconf import DictConfig
from verl import DataProto


class V0Run:
    """verl's V0 chain without its actor."""

    def __init__(self, config: DictConfig, policy: Any) -> None:
        from verl.experimental.agent_loop import AgentLoopManager
        from verl.experimental.reward_loop import RewardLoopManager
        from verl.utils.import_utils import load_class_from_fqn

        self.config = config
        self.reward_loop = RewardLoopManager(config)
        name = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
        manager = load_class_from_fqn(name, "AgentLoopManager") if name else AgentLoopManager
        self.agents = manager.create(
            config=config,
            llm_client=policy,
            teacher_client=None,
            reward_loop_worker_handles=self.reward_loop.reward_loop_worker_handles,
        )

    def close(self) -> None:
        for worker in (*self.agents.agent_loop_workers, *self.reward_loop.reward_loop_workers):
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
