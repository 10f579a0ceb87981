"""The V1 trainer's chain: agent loops, reward loop, TransferQueue, advantage step."""

import time
from types import SimpleNamespace
from typing import Any

import ray
import torch
from omegaconf import DictConfig, OmegaConf


class V1Run:
    """verl's V1 chain without its actor: what lies between the policy's text and its gradient.

    Args:
        config: verl's whole configuration.
        policy: writes the responses.
        reward_loop: verl's manager of its reward workers.
    """

    def __init__(self, config: DictConfig, policy: Any, reward_loop: Any) -> None:
        import transfer_queue as tq
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ

        self.config = config
        self._tq = tq
        tq.init(config.transfer_queue)  # the first time; after that verl's workers share the queue
        self.reward_loop = reward_loop
        self.agents = AgentLoopManagerTQ.create(
            config=config,
            llm_client=policy,
            teacher_client=None,
            reward_loop_worker_handles=reward_loop.reward_loop_worker_handles,
        )

    def close(self) -> None:
        """End the agent workers and forget what stands in the queue.

        The queue itself stays: closing it while verl's workers are connected can wait for ever.
        """
        for worker in self.agents.agent_loop_workers:
            ray.kill(worker)
        for partition, tags in self._tq.kv_list().items():
            if tags:
                self._tq.kv_clear(keys=list(tags), partition_id=partition)

    def rollout(
        self, batch_dict: dict[str, Any], partition: str = "train", seconds: float = 300
    ) -> Any:
        """Generate and score a batch: the `KVBatchMeta` of all its outputs.

        Args:
            batch_dict: what verl's data loader gives, with a `uid` for each prompt.
            partition: of the queue: `train`, or `val` for validation. verl knows no other.
            seconds: how long all of it may take.
        """
        from transfer_queue import KVBatchMeta
        from verl.utils import tensordict_utils as tu

        batch = tu.get_tensordict(dict(batch_dict))
        tu.assign_non_tensor_data(batch, "global_steps", 1)
        if partition == "val":
            tu.assign_non_tensor_data(batch, "validate", True)
        uids = list(batch_dict["uid"])
        self._tq.kv_batch_put(
            keys=uids,
            partition_id=partition,
            tags=[{"is_prompt": True, "status": "pending", "global_steps": 1} for _ in uids],
        )
        self.agents.generate_sequences(batch)
        end = time.monotonic() + seconds
        while True:
            tags = self.tags(partition)
            states = {uid: tags[uid]["status"] for uid in uids}
            if all(state in ("finished", "failure") for state in states.values()):
                break
            assert time.monotonic() < end, states
            time.sleep(0.1)
        keys = sorted(key for key in tags if key.rsplit("_", 2)[0] in uids and key not in uids)
        self.states = states
        return KVBatchMeta(partition_id=partition, keys=keys, tags=[tags[key] for key in keys])

    def tags(self, partition: str = "train") -> dict[str, dict[str, Any]]:
        """The state of everything in a partition of the queue, prompts and their outputs."""
        partitions: dict[str, dict[str, dict[str, Any]]] = self._tq.kv_list(partition_id=partition)
        return partitions.get(partition, {})

    def get(self, batch: Any, *fields: str) -> Any:
        """Fields of a batch from the queue."""
        return self._tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields)
        )

    def advantages(self, batch: Any, estimator: str | None = None) -> list[torch.Tensor]:
        """verl's own advantage step, and what it wrote. `estimator`: None for the configured."""
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer

        algorithm = {} if estimator is None else {"adv_estimator": estimator}
        config = OmegaConf.merge(self.config, {"algorithm": algorithm})
        PPOTrainer._compute_advantage(SimpleNamespace(config=config), batch, {})
        return list(self.get(batch, "advantages")["advantages"].unbind())

    def metrics(self, batch: Any) -> dict[str, float]:
        """What verl's trainer logs of a batch that has its advantages."""
        from verl.trainer.ppo.v1.trainer_base import PPOTrainer

        trainer = SimpleNamespace(
            config=self.config,
            use_critic=False,
            _rollout_moe_lb_metrics_accumulator=None,
            _get_n_gpus_for_throughput=lambda: 1,
        )
        found: dict[str, float] = {}
        timing = {"step": 1.0, "gen": 1.0, "adv": 0.1}
        PPOTrainer._compute_metrics(trainer, batch, found, timing, 1, 0)
        return found
