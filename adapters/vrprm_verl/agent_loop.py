"""Agent loops whose outputs carry a reward for every step. For the V1 trainer (verl 0.9).

    actor_rollout_ref.rollout.agent.default_agent_loop=vrprm_single_turn_agent

verl writes the scalar reward of an output onto its last token. These outputs write the rewards of
the steps instead, which stand in `reward_extra_info`.
"""

from typing import Any

import torch
from verl.experimental.agent_loop import SingleTurnAgentLoop, ToolAgentLoop
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register

from vrprm_verl.prompt import NOTE, ground_truth_of
from vrprm_verl.reward import MASK, is_colocated
from vrprm_verl.row import checksum, row_in


class DenseAgentLoopOutput(AgentLoopOutput):  # type: ignore[misc]  # verl is untyped
    """An output whose `rm_scores` hold the rewards of the steps on their last tokens."""

    def as_dict(self) -> dict[str, Any]:
        """As verl's, with dense `rm_scores` where this output was judged."""
        if self.reward_score is not None and not self.response_ids:
            # verl writes onto the last token, which an empty response does not have.
            empty = self.model_copy(update={"reward_score": None})
            return {**AgentLoopOutput.as_dict(empty), "rm_scores": torch.zeros(0)}
        return with_dense_scores(super().as_dict())

    @classmethod
    def of(cls, output: AgentLoopOutput) -> "DenseAgentLoopOutput":
        """The same output, of this class."""
        if isinstance(output, cls):
            return output
        fields = set(output.model_fields_set)
        found: DenseAgentLoopOutput = cls.model_construct(_fields_set=fields, **output.__dict__)
        found.extra_fields[MASK] = list(found.response_mask)
        return found


def with_dense_scores(output: dict[str, Any]) -> dict[str, Any]:
    """An output's dictionary with the rewards of its steps, if it is the one that was judged.

    An agent may return several outputs of one trajectory. The last one is judged; the others keep
    verl's scalar on their last token.
    """
    fields = output.get("extra_fields") or {}
    fields.pop(MASK, None)
    row = row_in(fields.get("reward_extra_info"))
    if row is not None and "rm_scores" in output and row.belongs_to(output["responses"]):
        output["rm_scores"] = row.dense(len(output["responses"]))
    return output


class _Dense:
    """Before an agent loop of verl: its outputs become dense ones."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """Run the loop."""
        found = await super().run(sampling_params, **kwargs)  # type: ignore[misc]
        outputs = found if isinstance(found, list) else [found]
        dense = [DenseAgentLoopOutput.of(output) for output in outputs]
        if is_colocated(self.config) and dense:  # type: ignore[attr-defined]
            _leave_note(kwargs, dense[-1])
        return dense if isinstance(found, list) else dense[0]


def _leave_note(fields: dict[str, Any], output: AgentLoopOutput) -> None:
    """Put what the judge needs on the prompt's first message.

    The V1 trainer hands a colocated reward model tokens and `raw_prompt` and nothing else. All
    rollouts of a prompt share its messages, so each puts its mask under its own checksum.
    """
    first = dict(fields["raw_prompt"][0])
    note = dict(first.get(NOTE) or {})
    note["ground_truth"] = ground_truth_of(fields.get("reward_model"))
    note["extra_info"] = {
        key: value
        for key, value in (fields.get("extra_info") or {}).items()
        if isinstance(value, str | int | float)
    }
    masks = {str(checksum(output.response_ids)): list(output.response_mask)}
    note["masks"] = {**note.get("masks", {}), **masks}
    fields["raw_prompt"][0] = {**first, NOTE: note}


@register("vrprm_single_turn_agent")
class VRPRMSingleTurnAgentLoop(_Dense, SingleTurnAgentLoop):  # type: ignore[misc]
    """verl's single-turn loop with a reward for every step."""


@register("vrprm_tool_agent")
class VRPRMToolAgentLoop(_Dense, ToolAgentLoop):  # type: ignore[misc]
    """verl's tool loop with a reward for every step of the policy; tools write none."""
