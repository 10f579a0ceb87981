"""The tiny example learns by the very advantages that verl gets from this project."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from examples.tiny_rl.arms import ARMS
from examples.tiny_rl.learning import token_advantages
from examples.tiny_rl.sampling import Response
from vrprm_reward.process_reward import DEMO_FOLDER
from vrprm_reward.rewards.advantage import ESTIMATORS
from vrprm_reward.rewards.align import last_tokens
from vrprm_reward.rewards.combine import outcome_reward, rollout_reward
from vrprm_reward.rewards.outcome import Outcome
from vrprm_reward.steps import split_steps
from vrprm_reward.types import ProcessScore
from vrprm_verl.estimators import make_estimator
from vrprm_verl.row import Row

TEXTS = (
    "The number of reds is two.\nThe answer is two.",
    "The number of reds is one.\nThe answer is one.\nThe answer is one.",
    "The answer is two.",
    "nonsense\n\nand more of it",
)


def response(tokenizer, text):
    ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    return Response(ids, text, True)


def rewards_of(arm, rng):
    found = []
    for text in TEXTS:
        outcome = Outcome(float("is two" in text))
        if not arm.rule.needs_process:
            found.append(outcome_reward(outcome, arm.rule))
            continue
        steps = split_steps(text)
        p = tuple(rng.random() for _ in steps)
        score = ProcessScore(status="scored", steps=steps, p_correct=p)
        found.append(rollout_reward(score, outcome, arm.rule))
    return found


@pytest.mark.parametrize("name", ARMS)
def test_token_advantages_are_those_that_verl_gets_from_this_projects_estimators(name):
    arm, tokenizer = ARMS[name], AutoTokenizer.from_pretrained(DEMO_FOLDER)
    responses = [response(tokenizer, text) for text in TEXTS]
    rewards = rewards_of(arm, random.Random(1))
    groups = ["a", "a", "a", "a"]
    found = token_advantages(rewards, responses, groups, arm.estimator, tokenizer)
    length = found.shape[1]
    rows = []
    for reward, one in zip(rewards, responses, strict=True):
        places = (len(one.ids) - 1,)
        if reward.steps:
            places = tuple(last_tokens(one.ids, tokenizer, one.text, reward.steps))
        rows.append(Row(reward, places, 0, 0.0, last=len(one.ids) - 1).dense(length))
    mask = torch.tensor([[i < len(r.ids) for i in range(length)] for r in responses]).float()
    wanted, _ = make_estimator(ESTIMATORS[arm.estimator])(torch.stack(rows), mask, groups, {})
    assert torch.allclose(found, wanted, atol=1e-6)
    assert found.abs().sum() > 0
