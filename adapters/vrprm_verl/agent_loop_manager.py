"""The agent loop manager of the V0 trainer (verl 0.8, and 0.9 with trainer.use_v1=False).

    +actor_rollout_ref.rollout.agent.agent_loop_manager_class=\\
        vrprm_verl.agent_loop_manager.DenseAgentLoopManager

Any agent loop may run below it: rewards are put on their tokens where the batch is put together.
"""

from typing import Any

import ray
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopManager, AgentLoopWorker

from vrprm_verl.reward import MASK
from vrprm_verl.row import ROW, Row


class DenseAgentLoopWorker(AgentLoopWorker):  # type: ignore[misc]  # verl is untyped
    """verl's worker, with the rewards of the steps in `rm_scores`."""

    async def _agent_loop_postprocess(self, output: Any, *args: Any, **kwargs: Any) -> Any:
        output.extra_fields[MASK] = list(output.response_mask)
        return await super()._agent_loop_postprocess(output, *args, **kwargs)

    def _postprocess(self, *args: Any, **kwargs: Any) -> DataProto:
        return place_in_batch(super()._postprocess(*args, **kwargs))


def place_in_batch(batch: DataProto) -> DataProto:
    """Put the rewards of the steps into a batch's `rm_scores`, in place."""
    batch.non_tensor_batch.pop(MASK, None)
    texts = batch.non_tensor_batch.get(ROW)
    if texts is None or "rm_scores" not in batch.batch:
        return batch
    responses = batch.batch["responses"]
    width = responses.shape[-1]
    counts = batch.batch["attention_mask"][:, -width:].sum(dim=-1).tolist()
    for index, (text, count) in enumerate(zip(texts, counts, strict=True)):
        row = Row.from_json(str(text))
        if not row.belongs_to(responses[index, :count]):
            raise AssertionError(f"row {index} was judged on other tokens than it has")
        batch.batch["rm_scores"][index] = row.dense(width)
    return batch


class DenseAgentLoopManager(AgentLoopManager):  # type: ignore[misc]
    """verl's manager with `DenseAgentLoopWorker`s."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.agent_loop_workers_class = ray.remote(DenseAgentLoopWorker)
        super().__init__(*args, **kwargs)
