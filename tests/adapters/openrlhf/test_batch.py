"""What is refused before anything is added to a batch of experiences."""

from types import SimpleNamespace

import pytest
import torch

from vrprm_openrlhf.batch import BatchPlan
from vrprm_openrlhf.dense import RAW, RULES
from vrprm_openrlhf.errors import OpenRLHFError
from vrprm_openrlhf.settings import TrainerSettings
from vrprm_openrlhf.wire import COUNT, MASKED, POSITIONS, VALUES
from vrprm_reward.rewards.combine import SOUND_PREFIX

COMPARING = sorted(set(RULES) - {RAW, SOUND_PREFIX})


def plan(advantage, *, samples, estimator="reinforce"):
    """A plan for one micro batch: two responses of three tokens, a step on each second token."""
    info = {
        MASKED: torch.zeros(2),
        POSITIONS: torch.tensor([[1], [1]]),
        VALUES: torch.tensor([[1.0], [0.0]]),
        COUNT: torch.ones(2),
    }
    experience = SimpleNamespace(
        info=info, index=[0, 1], action_mask=torch.ones(2, 3, dtype=torch.long)
    )
    args = SimpleNamespace(
        algo=SimpleNamespace(advantage=SimpleNamespace(estimator=estimator)),
        rollout=SimpleNamespace(n_samples_per_prompt=samples),
    )
    return BatchPlan.of([experience], args, lambda: TrainerSettings(advantage=advantage))


@pytest.mark.parametrize("advantage", COMPARING)
def test_rules_that_compare_the_responses_to_a_prompt_are_refused_when_there_is_one(advantage):
    with pytest.raises(OpenRLHFError, match=rf"{advantage} compares .*_ADVANTAGE={RAW}"):
        plan(advantage, samples=1)


def test_one_response_to_a_prompt_is_enough_for_raw_step_rewards():
    (added,) = plan(RAW, samples=1).added
    assert added.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("estimator", ["gae", "rloo", "reinforce"])
def test_by_default_nothing_is_added_and_whatever_the_advantages_are_they_are_weighted(estimator):
    found = plan(SOUND_PREFIX, samples=1, estimator=estimator)
    (experience,) = found.experiences
    for own in found.experiences:
        assert not found.take(own.action_mask, gamma=0.9).any()
    experience.advantages = torch.tensor([[2.0, 2.0, 3.0], [2.0, 2.0, 3.0]])
    experience.returns = experience.advantages.clone()
    found.finish()
    # The first response's step is sure, the second's wrong: its end is not learnt from.
    assert experience.advantages.tolist() == [[2, 2, 3], [2, 2, 0]]
    assert experience.returns.tolist() == [[2, 2, 3], [2, 2, 3]]


@pytest.mark.parametrize("advantage", COMPARING)
def test_step_advantages_beside_a_critic_are_refused(advantage):
    with pytest.raises(OpenRLHFError, match=f"would have two: set .*={RAW}"):
        plan(advantage, samples=2, estimator="gae")
