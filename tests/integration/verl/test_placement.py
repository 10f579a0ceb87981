"""Where rewards stand in what verl's own output classes write. No Ray, no servers."""

import pytest
import torch

from vrprm_reward.rewards.combine import RolloutReward
from vrprm_verl.agent_loop import DenseAgentLoopOutput
from vrprm_verl.patches import patch_agent_loops
from vrprm_verl.reward import MASK
from vrprm_verl.row import Row, checksum

IDS = [11, 12, 13, 14, 15]
SCORED = RolloutReward("scored", (), (0.5, 0.25), (0.5, 0.25), 1.0)
MASKED = RolloutReward("unscored_ours", (), (), (), None, "server_timeout")


def info(reward=SCORED, tokens=(1, 4), ids=IDS):
    return Row(reward, tokens, checksum(ids), 0.1).extra_info()


def output(ids=IDS, score=0.75, extra=None):
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    found = AgentLoopOutput(
        prompt_ids=[1, 2],
        response_ids=list(ids),
        response_mask=[1] * len(ids),
        metrics=AgentLoopMetrics(),
        num_turns=2,
        extra_fields={},
    )
    found.reward_score = score
    if extra is not None:
        found.extra_fields["reward_extra_info"] = extra
    return found


def scores(found):
    return found["rm_scores"].tolist()


def test_verls_own_output_puts_everything_on_the_last_token():
    assert scores(output(extra=info()).as_dict()) == [0, 0, 0, 0, 0.75]


def test_a_dense_output_puts_each_steps_reward_on_its_token():
    found = DenseAgentLoopOutput.of(output(extra=info())).as_dict()
    assert scores(found) == [0, 0.5, 0, 0, 0.25]
    assert found["rm_scores"].dtype == torch.float32
    assert MASK not in found["extra_fields"]


def test_a_masked_output_is_exact_zeros():
    found = DenseAgentLoopOutput.of(output(score=0.0, extra=info(MASKED, ()))).as_dict()
    assert scores(found) == [0, 0, 0, 0, 0]


def test_an_output_that_was_not_the_one_judged_keeps_verls_scalar():
    found = DenseAgentLoopOutput.of(output(ids=[1, 2, 3, 4, 5], extra=info())).as_dict()
    assert scores(found) == [0, 0, 0, 0, 0.75]


def test_another_reward_managers_output_is_left_alone():
    found = DenseAgentLoopOutput.of(output(extra={"acc": 1.0})).as_dict()
    assert scores(found) == [0, 0, 0, 0, 0.75]
    assert "rm_scores" not in DenseAgentLoopOutput.of(output(score=None)).as_dict()


def test_a_response_without_a_token_has_no_rewards_and_does_not_end_the_group():
    with pytest.raises(IndexError):
        output(ids=[], extra=info(MASKED, (), ids=[])).as_dict()
    found = DenseAgentLoopOutput.of(output(ids=[], extra=info(MASKED, (), ids=[]))).as_dict()
    assert found["rm_scores"].shape == (0,)


def test_a_dense_output_tells_the_manager_which_tokens_the_policy_wrote():
    plain = output()
    plain.response_mask = [1, 0, 0, 1, 1]
    dense = DenseAgentLoopOutput.of(plain)
    assert dense.extra_fields[MASK] == [1, 0, 0, 1, 1]
    assert dense.response_ids == IDS
    assert DenseAgentLoopOutput.of(dense) is dense


@pytest.fixture
def fallback(monkeypatch):
    from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, AgentLoopWorker

    for owner, name in [
        (AgentLoopOutput, "as_dict"),
        (AgentLoopWorker, "_postprocess"),
        (AgentLoopWorker, "_compute_score"),
    ]:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    patch_agent_loops()


def test_the_fallback_makes_every_output_dense(fallback):
    assert scores(output(extra=info()).as_dict()) == [0, 0.5, 0, 0, 0.25]
    assert scores(output(extra={"acc": 1.0}).as_dict()) == [0, 0, 0, 0, 0.75]
    before = type(output()).as_dict
    patch_agent_loops()
    assert type(output()).as_dict is before


def test_the_fallback_makes_a_v0_batch_dense(fallback):
    from verl.experimental.agent_loop.agent_loop import (
        AgentLoopMetrics,
        AgentLoopWorker,
        _InternalAgentLoopOutput,
    )

    def row(reward, tokens, ids):
        width = torch.zeros(1, 6, dtype=torch.long)
        width[0, : len(ids)] = torch.tensor(ids)
        mask = (torch.arange(6) < len(ids)).long()[None]
        prompt = torch.ones(1, 2, dtype=torch.long)
        return _InternalAgentLoopOutput(
            prompt_ids=prompt,
            response_ids=width,
            input_ids=torch.cat([prompt, width], 1),
            position_ids=torch.arange(8)[None],
            response_mask=mask,
            attention_mask=torch.cat([prompt, mask], 1),
            reward_score=reward.total,
            metrics=AgentLoopMetrics(),
            extra_fields={"reward_extra_info": info(reward, tokens, ids), MASK: [1] * len(ids)},
        )

    worker = AgentLoopWorker.__new__(AgentLoopWorker)
    worker.reward_loop_worker_handles = [object()]
    batch = worker._postprocess([row(SCORED, (1, 4), IDS), row(MASKED, (), [7, 8])])
    assert batch.batch["rm_scores"].tolist() == [[0, 0.5, 0, 0, 0.25, 0], [0] * 6]
    assert MASK not in batch.non_tensor_batch


def test_the_function_that_opens_the_way_raises_for_any_other_manager():
    from vrprm_verl.score import compute_score

    with pytest.raises(RuntimeError, match=r"reward_manager\.name=vrprm"):
        compute_score(data_source="x", solution_str="y", ground_truth="z", extra_info={})
