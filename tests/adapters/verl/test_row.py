"""What a row carries, and that verl's arrays can hold it."""

import json
import pickle

import numpy as np
import pytest
import torch

from vrprm_reward.rewards.combine import RolloutReward
from vrprm_verl.estimators import step_rewards_of
from vrprm_verl.row import ROW, VISIBLE_ZERO, DenseScore, Row, checksum, row_in


def scored(rewards=(0.5, 0.0), p=(0.9, 0.0), outcome=1.0):
    return RolloutReward("scored", (), tuple(rewards), tuple(p), outcome)


ROWS = [
    Row(scored(), (1, 3), checksum([5, 6, 7, 8]), 0.5),
    Row(RolloutReward("unscored_response", (), (0.0,), (), 0.0, "response_empty"), (3,), 1, 0.0),
    Row(RolloutReward("unscored_ours", (), (), (), None, "server_timeout", "late"), (), 1, 9.0),
    Row(scored(), (1, 3), 7, 0.5, validation=True),
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_survives_as_json(row):
    copy = Row.from_json(row.to_json())
    assert copy.to_json() == row.to_json()
    assert torch.equal(copy.dense(4), row.dense(4))
    assert row_in(row.extra_info()).to_json() == row.to_json()


def test_every_row_has_the_same_names_and_values_that_numpy_stacks():
    infos = [row.extra_info() for row in ROWS]
    assert len({tuple(info) for info in infos}) == 1
    for name in infos[0]:
        assert np.array([info[name] for info in infos]).shape == (4,)
        kinds = {type(info[name]) for info in infos}
        assert kinds == {str} if name == ROW else kinds == {float}
    assert "acc" in infos[0]
    assert [info["vrprm_masked"] for info in infos] == [0, 0, 1, 0]


def test_a_step_that_earned_nothing_stays_visible_and_a_masked_row_is_exact_zeros():
    dense = ROWS[0].dense(5)
    assert dense.dtype == torch.float32
    assert dense.nonzero().flatten().tolist() == [1, 3]
    assert dense.sum().item() == 0.5
    assert ROWS[1].dense(5).nonzero().flatten().tolist() == [3]
    assert not ROWS[2].dense(5).any()


def test_a_row_that_earned_nothing_is_told_from_a_masked_one_where_verl_places_its_scalar():
    assert [row.scalar for row in ROWS] == [0.5, VISIBLE_ZERO, 0.0, 0.5]
    wrong = Row(scored((0.0, 0.0), outcome=0.0), (1, 3), 7, 0.5)
    assert (wrong.scalar, wrong.extra_info()["score"]) == (VISIBLE_ZERO, 0.0)
    (rewards,), (tokens,), (end,) = step_rewards_of(wrong.dense(5)[None], torch.ones(1, 5))
    assert (rewards.tolist(), tokens, end) == ([0.0, 0.0], [1, 3], 0.0)


def test_what_the_end_earns_stands_on_the_last_token():
    reward = RolloutReward("scored", (), (0.5, 0.0), (0.9, 0.0), 1.0, end=1.0)
    row = Row(reward, (1, 3), 7, 0.5, last=4)
    copy = Row.from_json(row.to_json())
    assert (copy.reward.end, copy.last, copy.scalar) == (1.0, 4, 1.5)
    assert copy.dense(6).tolist() == pytest.approx([0, 0.5, 0, VISIBLE_ZERO, 1, 0])
    # A last step of one token, behind which a response was cut off, shares it with the end.
    assert Row(reward, (1, 3), 7, 0.5, last=3).dense(6).tolist() == [0, 0.5, 0, 1, 0, 0]


def test_a_row_knows_the_tokens_that_were_judged():
    assert ROWS[0].belongs_to(torch.tensor([5, 6, 7, 8]))
    assert ROWS[0].belongs_to([5, 6, 7, 8])
    assert not ROWS[0].belongs_to([5, 6, 7])


def test_a_dense_score_is_its_total_and_brings_its_row_through_pickle():
    score = pickle.loads(pickle.dumps(DenseScore(ROWS[0])))
    assert score == 0.5
    assert torch.tensor([score]).item() == 0.5
    assert score.row.to_json() == ROWS[0].to_json()


def test_an_unknown_outcome_counts_as_not_right_and_says_that_it_is_unknown():
    info = ROWS[2].extra_info()
    assert (info["acc"], info["vrprm_outcome_known"]) == (0.0, 0.0)


def test_what_another_reward_manager_wrote_is_no_row():
    assert row_in(None) is None
    assert row_in({"acc": 1.0}) is None
    assert json.loads(ROWS[0].to_json())["tokens"] == [1, 3]
