import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vrprm_openrlhf.dense import RULES, token_rewards
from vrprm_openrlhf.errors import StepRewardsError
from vrprm_openrlhf.wire import COUNT, MASKED, POSITIONS, VALUES, StepRow, pack, unpack
from vrprm_openrlhf.wire import unpack_masked as masked_of
from vrprm_reward.rewards.advantage import ESTIMATORS, to_tokens


def row(positions, values):
    return StepRow(torch.tensor(positions), torch.tensor(values, dtype=torch.float32))


def to_the_end(rewards):
    return rewards.flip(0).cumsum(0).flip(0)


@st.composite
def batches(draw):
    """Rollouts of two problems, some of them masked, some with steps that share a token."""
    rows, masks, groups = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 12))
        mask = torch.zeros(length + 3, dtype=torch.long)
        mask[2 : length + 2] = 1
        count = draw(st.integers(1, 5))
        places = sorted(draw(st.lists(st.integers(2, length + 1), min_size=count, max_size=count)))
        values = draw(st.lists(st.floats(-2, 2, width=16), min_size=count, max_size=count))
        rows.append(draw(st.sampled_from([row(places, values), row(places, values), None])))
        masks.append(mask)
        groups.append(draw(st.integers(0, 1)))
    return rows, masks, groups


@given(batches(), st.sampled_from(sorted(ESTIMATORS)))
def test_summed_to_the_end_the_rewards_are_the_advantages_of_the_steps(batch, rule):
    rows, masks, groups = batch
    advantages = ESTIMATORS[rule]([None if r is None else r.values for r in rows], groups)
    found = token_rewards(rows, masks, groups, rule)
    for each, advantage, tokens, mask in zip(rows, advantages, found, masks, strict=True):
        if each is None:
            assert not tokens.any()
            continue
        expected = to_tokens(advantage, each.positions.tolist(), mask)
        assert torch.allclose(to_the_end(tokens) * mask, expected, atol=1e-4)


@given(batches())
def test_raw_rewards_lose_no_mass(batch):
    rows, masks, groups = batch
    for each, tokens in zip(rows, token_rewards(rows, masks, groups, "none"), strict=True):
        total = 0.0 if each is None else float(each.values.sum())
        assert float(tokens.sum()) == pytest.approx(total, abs=1e-4)


def test_the_worked_example_of_leave_one_out_lands_on_the_tokens():
    # [[1, 1, 1, 1], [1, 0, 0, 0]] gives [3, 3, 2, 1] and its negative; see rewards.advantage.
    masks = [torch.ones(8)] * 2
    places = [1, 3, 4, 6]
    rows = [row(places, [1, 1, 1, 1]), row(places, [1, 0, 0, 0])]
    first, second = token_rewards(rows, masks, ["a", "a"], "leave_one_out")
    assert to_the_end(first).tolist() == [3, 3, 3, 3, 2, 1, 1, 0]
    assert to_the_end(second).tolist() == [-3, -3, -3, -3, -2, -1, -1, 0]


def test_same_step_by_hand_with_rollouts_of_other_lengths():
    # Returns-to-go [0.9, 0.4, 0.8] and [0.5]; the last token of each response ends it.
    masks = [torch.ones(6), torch.ones(3)]
    rows = [row([0, 2, 4], [0.5, -0.4, 0.8]), row([1], [0.5])]
    first, second = token_rewards(rows, masks, ["a", "a"], "same_step")
    assert to_the_end(first).tolist() == pytest.approx([0.4, 0, 0, 0, 0, 0])
    assert to_the_end(second).tolist() == pytest.approx([-0.4, -0.4, 0])


@pytest.mark.parametrize("rule", RULES)
def test_a_rollout_without_steps_gets_zeros_and_is_no_part_of_its_group(rule):
    masks = [torch.ones(3)] * 3
    rows = [row([0, 2], [1.0, 0.5]), row([], []), row([1, 2], [0.0, 1.0])]
    found = token_rewards(rows, masks, [0, 0, 0], rule)
    without = token_rewards([rows[0], rows[2]], masks[:2], [0, 0], rule)
    assert not found[1].any()
    assert torch.equal(torch.stack([found[0], found[2]]), torch.stack(without))


def padded(*rollouts):
    """As OpenRLHF merges the entries of several rollouts: rows padded with zeros."""
    rows = {key: [torch.tensor([each[key]]).flatten() for each in rollouts] for key in rollouts[0]}
    info = {
        key: torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        for key, values in rows.items()
    }
    return {**info, COUNT: info[COUNT].flatten()}


def test_step_rewards_come_out_of_a_padded_batch_as_they_went_in():
    # The prompt has three tokens, so token 0 of the response stands at 2 in the action mask.
    info = padded(pack([1, 4], [0.0, 0.5], first=3), pack([0], [-1.0], first=3), pack([], [], 3))
    info["other"] = torch.zeros(3)
    mask = torch.zeros(3, 7, dtype=torch.long)
    mask[:, 2:] = 1
    rows = unpack(info, mask)
    assert [r.positions.tolist() for r in rows] == [[3, 6], [2], []]
    assert [r.values.tolist() for r in rows] == [[0.0, 0.5], [-1.0], []]
    assert info.keys() == {"other"}


def test_a_batch_without_step_rewards_has_none():
    assert unpack({"reward": torch.zeros(2)}, torch.ones(2, 3)) is None
    assert masked_of({"reward": torch.zeros(2)}, 2).tolist() == [False, False]


@pytest.mark.parametrize("missing", [POSITIONS, VALUES, COUNT])
def test_a_key_that_got_lost_is_found_out(missing):
    info = padded(pack([1], [0.5], first=1), pack([1], [0.5], first=1))
    del info[missing]
    with pytest.raises(StepRewardsError, match="must have all three"):
        unpack(info, torch.ones(2, 4))


@pytest.mark.parametrize("first", [0, 1, 5])
def test_a_reward_on_a_token_that_the_policy_did_not_write_is_found_out(first):
    mask = torch.tensor([[0, 1, 1, 0]])
    with pytest.raises(StepRewardsError, match="not all tokens"):
        unpack(padded(pack([0], [0.5], first=first)), mask)


def test_masks_that_some_rollouts_lack_are_found_out():
    with pytest.raises(StepRewardsError, match="another executor or server"):
        masked_of({MASKED: torch.tensor([1.0])}, 2)
