"""verl's tensors -> advantages, worked out by hand."""

import logging

import pytest
import torch

from tests.qwen_vocabulary import qwen3_tokenizer
from vrprm_reward.errors import InputError
from vrprm_reward.rewards.advantage import ESTIMATORS, leave_one_out, same_step
from vrprm_reward.rewards.combine import RolloutReward
from vrprm_reward.steps import StepSettings
from vrprm_verl.estimators import NAMES, MaskedShareError, make_estimator, step_rewards_of
from vrprm_verl.row import VISIBLE_ZERO, Row
from vrprm_verl.transcript import read_transcript

Z = VISIBLE_ZERO
estimate = make_estimator(leave_one_out)


def batch():
    """Two rollouts of one problem, [1, 1, 1, 1] and [1, 0, 0, 0], over eight tokens and a ninth
    that pads; the eighth ends them and earns nothing."""
    rewards = torch.zeros(2, 9)
    rewards[0, [1, 3, 5, 6, 7]] = torch.tensor([1.0, 1.0, 1.0, 1.0, Z])
    rewards[1, [0, 2, 4, 6, 7]] = torch.tensor([1.0, Z, Z, Z, Z])
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[:, 8] = 0
    return rewards, mask


def test_what_stands_on_the_last_token_is_the_ends():
    rewards = torch.tensor([[0.5, 0, Z, 1, 0], [0, 0.5, 1.5, 0, 0], [0, 0, 0.25, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]])
    found, tokens, ends = step_rewards_of(rewards, mask)
    # The second was cut off in a second step of one token; the third is rewarded as a whole.
    assert [row.tolist() for row in found] == [[0.5, 0], [0.5], [0.25]]
    assert (tokens, ends) == ([[0, 2], [1], [2]], [1.0, 1.5, 0.0])
    advantages, _ = estimate(rewards, mask, index=["a"] * 3)
    # Returns-to-go 1.5, 1, 1; 2, 1.5; 0.25, and 0 behind it.
    assert advantages[0].tolist() == [0.375, 0.25, 0.25, 0.25, 0]
    assert advantages[1].tolist() == [1.125, 1.125, 1.0, 0, 0]
    assert advantages[2].tolist() == [-1.5, -1.5, -1.5, 0, 0]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_cut_off_response_is_credited_for_its_last_step_as_any_other(name):
    tokenizer = qwen3_tokenizer()
    texts = ["It is two.\n\nSo four.<|im_end|>"] * 3 + ["It is two.\n\nSo six"]
    steps = [(0.9, 0.8), (0.9, 0.7), (0.9, 0.9), (0.9, 0.02)]
    rows, tokens, lengths = [], [], []
    for text, rewards in zip(texts, steps, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        found = read_transcript(ids, [1] * len(ids), tokenizer, StepSettings())
        reward = RolloutReward("scored", found.steps, rewards, rewards, None)
        rows.append(Row(reward, found.tokens, 0, 0.0, last=found.last).dense(16))
        tokens.append(found.tokens)
        lengths.append(len(ids))
    mask = torch.tensor([[place < length for place in range(16)] for length in lengths]).long()
    advantages, _ = make_estimator(ESTIMATORS[name])(torch.stack(rows), mask, ["a"] * 4, {})
    wanted = ESTIMATORS[name]([torch.tensor(each) for each in steps], ["a"] * 4)
    for row, places, step_advantages in zip(advantages, tokens, wanted, strict=True):
        assert row[list(places)].tolist() == pytest.approx(step_advantages[:-1].tolist(), abs=1e-5)


def test_same_step_by_hand_on_tokens():
    # Returns-to-go are the probabilities [1, 1, 0.5] (two of them alike: a reward of exactly 0) and
    # [0.5, 0.5]; the last token of each response ends it.
    rewards = torch.zeros(2, 7)
    rewards[0, [1, 3, 5]] = torch.tensor([Z, 0.5, 0.5])
    rewards[1, [0, 4]] = torch.tensor([Z, 0.5])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
    advantages, returns = make_estimator(same_step)(rewards, mask, index=["a", "a"])
    assert advantages[0].tolist() == [0.5, 0.5, 0.5, 0.5, 0, 0, 0]
    assert advantages[1].tolist() == [-0.5] * 5 + [0, 0]
    assert torch.equal(advantages, returns)


def test_the_default_by_hand_on_tokens():
    rewards, mask = batch()
    advantages, returns = estimate(rewards, mask, index=["a", "a"])
    assert advantages[0].tolist() == [3, 3, 3, 3, 2, 2, 1, 0, 0]
    assert advantages[1].tolist() == [-3, -3, -3, -2, -2, -1, -1, 0, 0]
    assert torch.equal(advantages, returns)


def test_steps_of_value_zero_are_steps():
    rewards, tokens, ends = step_rewards_of(*batch())
    assert [row.tolist() for row in rewards] == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert tokens == [[1, 3, 5, 6], [0, 2, 4, 6]]
    assert ends == [0, 0]


def test_a_masked_row_gets_nothing_and_stays_out_of_the_statistics(caplog):
    rewards, mask = batch()
    rewards = torch.cat([rewards, torch.zeros(1, 9)])
    mask = torch.cat([mask, torch.ones(1, 9, dtype=torch.long)])
    config = {"vrprm": {"max_masked_share": 0.5}}
    with caplog.at_level(logging.WARNING):
        advantages, _ = estimate(rewards, mask, index=["a"] * 3, config=config)
    assert not advantages[2].any()
    assert torch.equal(advantages[:2], estimate(*batch(), index=["a", "a"])[0])
    assert "1 of 3 rollouts have no score" in caplog.text


def test_too_many_masked_rows_stop_the_run_with_a_number():
    rewards, mask = batch()
    rewards[1] = 0
    with pytest.raises(
        MaskedShareError,
        match=r"1 of 2 rollouts.*share of 0\.5.*max_masked_share = 0\.2.*'a rollout has no score "
        r"\(REASON\)'.*outcome_no_reference.*combination=process.*server_\*.*/ready and /metrics",
    ):
        estimate(rewards, mask, index=["a", "a"])
    everything = {"vrprm": {"max_masked_share": 1.0}}
    assert not estimate(rewards * 0, mask, index=["a", "a"], config=everything)[0].any()


def test_verls_padding_rows_are_neither_masked_nor_counted():
    rewards, mask = batch()
    rewards = torch.cat([rewards, torch.zeros(6, 9)])
    mask = torch.cat([mask, torch.zeros(6, 9, dtype=torch.long)])
    index = ["a", "a"] + [f"pad{i}" for i in range(6)]
    advantages, _ = estimate(rewards, mask, index=index)
    assert torch.equal(advantages[:2], estimate(*batch(), index=["a", "a"])[0])
    assert not advantages[2:].any()


def test_an_unscorable_response_is_a_rollout_of_one_step_and_stays_in():
    # Rewards 1 against an empty response that earned 0 on its only token.
    rewards = torch.tensor([[0.0, 1.0], [Z, 0.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    advantages, _ = estimate(rewards, mask, index=["a", "a"])
    assert advantages.tolist() == [[1, 1], [-1, 0]]


def test_tool_tokens_get_no_advantage():
    rewards, mask = batch()
    mask[:, 2] = 0
    rewards[:, 2] = 0
    advantages, _ = estimate(rewards, mask, index=["a", "a"])
    assert advantages[:, 2].tolist() == [0, 0]


def test_a_penalty_in_the_rewards_is_refused_with_the_way_out():
    with pytest.raises(InputError, match="use_kl_loss=True"):
        estimate(*batch(), index=["a", "a"], config={"use_kl_in_reward": True})


def test_a_wrong_setting_is_named_with_its_place():
    with pytest.raises(InputError, match=r"algorithm\.vrprm\.max_masked_share"):
        estimate(*batch(), index=["a", "a"], config={"vrprm": {"max_masked_share": 2}})


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_rule_takes_verls_tensors(name):
    rewards, mask = batch()
    advantages, returns = make_estimator(ESTIMATORS[name])(rewards, mask, index=["a", "a"])
    assert advantages.shape == returns.shape == rewards.shape
    assert not (advantages * (1 - mask)).any()
    assert advantages[0].sum() > 0 > advantages[1].sum()
    assert f"vrprm_{name}" in NAMES
