"""verl's tool agent under the V1 trainer: what a tool wrote is read, and never rewarded."""

import json

import pytest
import torch

from tests.integration.verl.harness import (
    ScriptedPolicy,
    config_of,
    prompts_of,
    vrprm,
    write_data,
)
from tests.integration.verl.v1 import V1Run
from vrprm_verl.row import ROW

RED = "How many red shapes are there?"
CALL = '<tool_call>{"name": "zoom", "arguments": {"region": "left"}}</tool_call>'
TOOL = '''
from verl.tools.function_tool import function_tool


@function_tool
def zoom(region: str) -> str:
    """Look closer.

    Args:
        region: Which part of the picture.
    """
    return "The crop shows\\n\\nfour blue squares."
'''


@pytest.fixture
def run(reward_loops, reward_server, tmp_path):
    (tmp_path / "tools.py").write_text(TOOL)
    config = config_of(
        *vrprm(reward_server.url),
        "algorithm.adv_estimator=vrprm_leave_one_out",
        "actor_rollout_ref.rollout.agent.default_agent_loop=vrprm_tool_agent",
        "actor_rollout_ref.rollout.n=1",
        "actor_rollout_ref.rollout.response_length=512",
        "actor_rollout_ref.rollout.multi_turn.enable=True",
        "actor_rollout_ref.rollout.multi_turn.format=hermes",
        f"actor_rollout_ref.rollout.multi_turn.function_tool_path={tmp_path / 'tools.py'}",
    )
    turns = [f"I look closer. {CALL}", "The number of red shapes is three.\n\nThe answer is three."]
    found = V1Run(config, ScriptedPolicy({RED: turns}), reward_loops.of(config))
    yield found
    found.close()


def test_only_the_policys_own_tokens_are_rewarded(run, shapes, tmp_path):
    from verl.utils import hf_tokenizer

    from vrprm_reward.process_reward import DEMO_FOLDER

    write_data(tmp_path / "train.parquet", [(RED, "three", shapes)])
    batch = run.rollout(prompts_of(run.config, tmp_path / "train.parquet"))
    data = run.get(batch, "responses", "response_mask", "rm_scores", "extra_fields")
    (ids,), (mask,), (rewards,) = (
        data[name].unbind() for name in ("responses", "response_mask", "rm_scores")
    )
    text = hf_tokenizer(str(DEMO_FOLDER)).decode(ids)
    assert "four blue squares" in text
    assert (mask == 0).any()
    row = json.loads(next(iter(data["extra_fields"]))["reward_extra_info"][ROW])
    assert row["status"] == "scored", row
    assert len(row["p_correct"]) == 3  # looking closer with its call, and the two of the answer
    assert row["outcome"] == 1.0
    assert rewards.nonzero().flatten().tolist() == [*row["tokens"], row["last"]]
    assert not (rewards * (1 - mask)).any()
    advantages = run.advantages(batch)[0]
    assert torch.equal(advantages * (1 - mask), torch.zeros_like(advantages))
