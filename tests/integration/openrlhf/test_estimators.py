"""Step rewards in OpenRLHF's own estimators, against numbers worked out by hand.

The step advantages of the hand-made batch are [1.5, 0.5] and [-1.5, -0.5] (leave-one-out), so the
tokens of the two responses carry [1.5, 0.5, 0.5, 0.5] and [-1.5, -1.5, -0.5] besides what the
scalar gives.
"""

import random

import pytest
import torch

from tests.integration.openrlhf.batches import (
    ESTIMATORS,
    computed,
    experience_maker,
    experiences,
    hand_made,
    options,
    response,
)
from vrprm_openrlhf.errors import (
    IncompatibleOpenRLHFError,
    OpenRLHFError,
    StepRewardsError,
    UnscoredError,
)
from vrprm_openrlhf.patch import patch_module

WHITE = 7**0.5 / 4  # seven tokens whose deviations from the mean have 16 as the sum of squares
HALF = 2**-0.5  # outcomes 1 and 0: (1 - 0.5) / std


@pytest.fixture(autouse=True)
def _leave_one_out(monkeypatch):
    monkeypatch.setenv("VRPRM_OPENRLHF_ADVANTAGE", "leave_one_out")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_by_default_openrlhfs_own_advantages_are_weighted_by_what_stands_before(
    patched, monkeypatch, estimator
):
    # Probabilities 0.8, 0.4 of a right answer, which earns 0.4, and 0.9, 0.95 of a wrong one.
    def responses(first, second):
        return [
            response(4, 0.4, masked=False, steps=first),
            response(3, 0, masked=False, steps=second),
        ]

    options_, more = options(estimator), {"values": 0.5} if estimator == "gae" else {}
    bare, _ = computed(patched, options_, responses(None, None), **more)
    monkeypatch.delenv("VRPRM_OPENRLHF_ADVANTAGE")
    steps = responses([(0, 0.8), (3, -0.4)], [(1, 0.9), (2, 0.0)])
    found, _ = computed(patched, options_, steps, **more)
    for row, whole, weights in zip(found, bare, [[1, 0.8, 0.8, 0.8], [1, 1, 0.9]], strict=True):
        expected = [value * weight for value, weight in zip(whole, weights, strict=True)]
        assert row == pytest.approx(expected, abs=1e-6)
        assert any(row)


BY_HAND = {
    "reinforce": ([2, 1, 1, 1], [-2, -2, -1], WHITE),
    "reinforce_baseline": ([2, 1, 1, 1], [-2, -2, -1], WHITE),
    "rloo": ([2.5, 1.5, 1.5, 1.5], [-2.5, -2.5, -1.5], 1),
    "dr_grpo": ([2, 1, 1, 1], [-2, -2, -1], 1),
    "flash_reinforce": ([2, 1, 1, 1], [-2, -2, -1], 1),
    "group_norm": (
        [1.5 + HALF, 0.5 + HALF, 0.5 + HALF, 0.5 + HALF],
        [-1.5 - HALF, -1.5 - HALF, -0.5 - HALF],
        1,
    ),
}


@pytest.mark.parametrize("estimator", BY_HAND)
def test_step_advantages_are_those_worked_out_by_hand(patched, estimator):
    found, _ = computed(patched, options(estimator), hand_made())
    *rows, scale = BY_HAND[estimator]
    for row, expected in zip(found, rows, strict=True):
        assert row == pytest.approx([scale * value for value in expected], abs=1e-5)


def test_raw_step_rewards_reach_a_critic_as_they_are(patched, monkeypatch):
    # Returns are 2.5, 1.5, 1.5, 1.5 and 0, 0, 0; the critic says 0.5 everywhere; whitened.
    monkeypatch.setenv("VRPRM_OPENRLHF_ADVANTAGE", "none")
    found, batches = computed(patched, options("gae"), hand_made(), values=0.5)
    scale = (7 / 6) ** 0.5
    assert found[0] == pytest.approx([scale * x for x in (1.5, 0.5, 0.5, 0.5)], abs=1e-5)
    assert found[1] == pytest.approx([scale * x for x in (-1, -1, -1)], abs=1e-5)
    assert batches[0].returns[0][1:].tolist() == pytest.approx([2.5, 1.5, 1.5, 1.5])


@pytest.mark.parametrize(
    ("estimator", "more", "returns"),
    [
        # Step rewards 1 and 0.5 and an outcome of 1, halved for every token in between.
        ("reinforce", {}, [1.1875, 0.375, 0.75, 1.5]),
        # Errors of a critic that says 0.5: 0.75, -0.25, -0.25, 1; each adds a quarter of the next.
        ("gae", {"advantage__lambd": 0.5}, [1.1875, 0.25, 0.5, 1.5]),
        # The same, its errors not passed on: the critic's word for the next token, halved.
        ("gae", {"advantage__lambd": 0.0}, [1.25, 0.25, 0.25, 1.5]),
    ],
)
def test_raw_step_rewards_are_discounted_as_any_reward_is(
    patched, monkeypatch, estimator, more, returns
):
    monkeypatch.setenv("VRPRM_OPENRLHF_ADVANTAGE", "none")
    chosen = options(estimator, advantage__gamma=0.5, **more)
    _, batches = computed(patched, chosen, hand_made(), values=0.5)
    assert batches[0].returns[0][1:].tolist() == pytest.approx(returns)


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != "gae"])
def test_raw_step_rewards_are_summed_to_the_end(patched, monkeypatch, estimator):
    monkeypatch.setenv("VRPRM_OPENRLHF_ADVANTAGE", "none")
    _, batches = computed(patched, options(estimator), hand_made())
    scalar = {"reinforce": 1, "rloo": 1, "group_norm": HALF}.get(estimator, 0.5)
    expected = [1.5 + scalar, 0.5 + scalar, 0.5 + scalar, 0.5 + scalar]
    assert batches[0].returns[0][1:].tolist() == pytest.approx(expected, abs=1e-5)


def _random_responses(rng, **more):
    return [
        response(rng.randrange(2, 8), rng.uniform(-12, 12), truncated=rng.random() < 0.3, **more)
        for _ in range(8)
    ]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reward__clip_range": (-0.5, 0.5)},
        {"reward__overlong_buffer_len": 4, "reward__stop_properly_penalty_coef": 0.5},
        {"reward__stop_properly_penalty_coef": -0.5, "advantage__no_std_norm": True},
    ],
)
def test_runs_without_step_rewards_are_computed_as_ever(stock, patched, estimator, more):
    responses = _random_responses(random.Random(3))
    each = []
    for module in (stock, patched):
        torch.manual_seed(0)
        found, batches = computed(
            module,
            options(estimator, n=4, **more),
            responses,
            values=0.25,
            kl=lambda mask: mask * torch.rand_like(mask),
            kl_coefficient=0.1,
        )
        each.append((found, [batch.returns.tolist() for batch in batches], batches[0].info))
    assert each[0][:2] == each[1][:2]
    assert {k: v.tolist() for k, v in each[0][2].items()} == {
        k: v.tolist() for k, v in each[1][2].items()
    }


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_baseline_kl_clipping_and_penalties_stay_under_step_rewards(
    stock, patched, monkeypatch, estimator
):
    # Returns add up, so what the hook adds is what it adds without any of them.
    if estimator == "gae":
        monkeypatch.setenv("VRPRM_OPENRLHF_ADVANTAGE", "none")
    more = {"reward__overlong_buffer_len": 4, "reward__clip_range": (-1, 1)}
    rng = random.Random(4)
    plain = _random_responses(rng)
    dense = [
        {
            **each,
            "extra_logs": response(1, 0, steps=[(0, rng.random()), (1, rng.random())])[
                "extra_logs"
            ],
        }
        for each in plain
    ]
    silent = [{**each, "reward": 0.0} for each in dense]

    def returns(module, responses, kl_coefficient=0.1, **more):
        _, batches = computed(
            module,
            options(estimator, n=4, **more),
            responses,
            values=0.25,
            kl=lambda mask: mask * 0.3,
            kl_coefficient=kl_coefficient,
        )
        return torch.cat(
            [
                row[mask.bool()]
                for b in batches
                for row, mask in zip(b.returns, b.action_mask, strict=True)
            ]
        )

    whole = returns(patched, dense, **more)
    parts = returns(stock, plain, **more) + returns(patched, silent, kl_coefficient=0.0)
    assert whole.tolist() == pytest.approx(parts.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "estimator", ["reinforce", "reinforce_baseline", "dr_grpo", "flash_reinforce"]
)
@pytest.mark.parametrize("penalty", [None, 4])
def test_a_masked_rollout_is_as_if_it_were_not_there(patched, estimator, penalty):
    good = [
        response(7, 1, masked=False, steps=[(0, 1.0), (3, 0.5)]),
        response(3, 0, masked=False, steps=[(1, 0.2), (2, 0.0)]),
    ]
    bad = response(5, -7, masked=True, steps=[], truncated=True)
    without, _ = computed(
        patched, options(estimator, n=2, reward__overlong_buffer_len=penalty), good
    )
    found, batches = computed(
        patched,
        options(estimator, n=3, reward__overlong_buffer_len=penalty),
        [good[0], bad, good[1]],
    )
    assert found[1] == [0.0] * 5
    for row, expected in zip((found[0], found[2]), without, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    rewards = torch.cat([batch.info["reward"] for batch in batches])
    assert rewards[1].item() == pytest.approx((rewards[0].item() + rewards[2].item()) / 2)
    assert sum(int(batch.action_mask.sum()) for batch in batches) == 15


def test_leave_one_out_of_scalars_counts_a_masked_rollout_as_an_average_one(patched):
    # 1 and 0 without the masked one: +1, -1. With it: the mean of the others is (0 + 0.5) / 2.
    responses = [
        response(2, 1, masked=False, steps=[(1, 0.0)]),
        response(2, 0, masked=True, steps=[]),
        response(2, 0, masked=False, steps=[(1, 0.0)]),
    ]
    found, _ = computed(patched, options("rloo", n=3), responses)
    assert found == [[pytest.approx(0.75)] * 2, [0.0, 0.0], [pytest.approx(-0.75)] * 2]


def test_scalar_runs_are_masked_too(patched):
    responses = [response(2, 1, masked=False), response(2, -1, masked=True)]
    found, batches = computed(patched, options("dr_grpo"), responses)
    assert found == [[0.0, 0.0], [0.0, 0.0]]
    assert batches[0].info["reward"].tolist() == [1.0, 1.0]


def test_a_critic_learns_nothing_from_masked_rollouts(patched, monkeypatch):
    monkeypatch.setenv("VRPRM_OPENRLHF_ADVANTAGE", "none")
    responses = [hand_made()[0], response(3, -1, masked=True, steps=[])]
    _, batches = computed(patched, options("gae"), responses, values=0.5)
    mask = batches[0].action_mask[1].bool()
    assert batches[0].returns[1][mask].tolist() == [0.5] * 3
    assert batches[0].advantages[1][mask].tolist() == [0.0] * 3


def test_step_rewards_leave_nothing_in_the_logged_numbers(patched):
    _, batches = computed(patched, options("rloo"), hand_made())
    assert not {"vrprm_pos", "vrprm_val", "vrprm_n"} & batches[0].info.keys()
    assert batches[0].info["vrprm_unscored_ours"].tolist() == [0.0, 0.0]


def test_rollouts_with_and_without_steps_stand_in_one_batch(patched):
    responses = [*hand_made(), response(3, 0, masked=False, steps=[(2, 0.0)]), hand_made()[0]]
    found, _ = computed(patched, options("dr_grpo", n=4), responses)
    assert [len(row) for row in found] == [4, 3, 3, 4]


def test_an_executor_that_forgets_its_step_rewards_once_is_found_out(patched):
    responses = [*hand_made(), response(3, 0), response(3, 0)]
    with pytest.raises(StepRewardsError, match="one executor"):
        computed(patched, options("dr_grpo", n=4), responses)


def test_a_step_reward_outside_the_response_is_found_out(patched):
    responses = [hand_made()[0], response(3, 0, masked=False, steps=[(3, 1.0)])]
    with pytest.raises(StepRewardsError, match="not all tokens of its response"):
        computed(patched, options("dr_grpo"), responses)


def test_a_batch_with_too_many_masked_rollouts_stops_the_run(patched, monkeypatch):
    monkeypatch.setenv("VRPRM_OPENRLHF_MAX_MASKED_SHARE", "0.4")
    responses = [hand_made()[0], response(3, 0, masked=True, steps=[])]
    with pytest.raises(UnscoredError, match="1 of 2 rollouts"):
        computed(patched, options("dr_grpo"), responses)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (options("gae"), "ADVANTAGE=none"),
        (options("reinforce", advantage__gamma=0.9), "undiscounted"),
        (options("reinforce", n=1), "leave_one_out compares"),
    ],
)
def test_estimators_that_do_not_fit_the_rule_are_refused(patched, args, says):
    with pytest.raises(OpenRLHFError, match=says):
        computed(patched, args, hand_made(), values=0.0)


def test_without_the_hook_step_rewards_end_the_run_in_the_logger(stock):
    # Why the executor refuses to start: this is all that OpenRLHF itself would say.
    maker = experience_maker(stock, options("dr_grpo"))
    batch = maker.compute_advantages_and_returns(experiences(maker, hand_made()))[0]
    assert batch.info["vrprm_pos"].shape == (2, 2)
    assert batch.advantages[0][1:].tolist() == pytest.approx([0.5] * 4)


class _Changed:
    class RemoteExperienceMaker:
        def compute_advantages_and_returns(self, experiences): ...

        def get_advantages_and_returns(self, values, rewards, action_mask, gamma, lambd): ...

        def get_cumulative_returns(self, rewards, action_mask, gamma, estimator): ...

    @staticmethod
    def apply_length_penalties(experiences, args): ...


def test_a_version_whose_methods_look_different_is_refused_by_name():
    with pytest.raises(IncompatibleOpenRLHFError, match=r"openrlhf 0\.11.*get_cumulative_returns"):
        patch_module(_Changed)


def test_a_list_in_rewards_is_corruption_that_openrlhf_does_not_see(stock):
    # Why step rewards never go there: the second response is trained on the first one's step.
    responses = [{**each, "extra_logs": {}} for each in hand_made()]
    responses[0]["reward"] = responses[0]["scores"] = [0.1, 0.2, 0.3, 0.4]
    responses[1]["reward"] = responses[1]["scores"] = [0.5, 0.6, 0.7, 0.8]
    _, batches = computed(stock, options("reinforce"), responses)
    assert batches[0].returns[1][1].item() == pytest.approx(0.2)
