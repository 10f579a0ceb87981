import pytest
import torch

from examples.tiny_rl.learning import rate_factor, token_advantages, update, without_ends
from examples.tiny_rl.policy import build_policy
from examples.tiny_rl.sampling import Response
from vrprm_reward.rewards.combine import RolloutReward

TEXTS = (
    "The number of reds is two.\nThe answer is two.",
    "The number of reds is one.\nThe answer is one.\nThe answer is one.",
    "The answer is two.",
    "nonsense\n\nand more of it",
)


def response(policy, text):
    ids = (*policy.encoder.tokenizer.encode(text, add_special_tokens=False), policy.end)
    return Response(ids, text, True)


def test_a_masked_rollout_has_no_advantage_and_no_part_in_the_others(untrained):
    responses = [response(untrained, text) for text in TEXTS[:3]]
    scored = [RolloutReward("scored", (), (value,), (), value) for value in (1.0, 0.0)]
    masked = RolloutReward("unscored_ours", (), (), (), None, "timeout", "late")
    found = token_advantages(
        [*scored, masked], responses, [0, 0, 0], "leave_one_out", untrained.encoder.tokenizer
    )
    assert found[0, 0] == 1
    assert found[1, 0] == -1
    assert found[2].abs().sum() == 0


def test_the_token_that_ends_a_response_can_be_left_out(untrained):
    ended = response(untrained, TEXTS[0])
    cut = Response(response(untrained, TEXTS[1]).ids[:-1], TEXTS[1], False)
    length = max(len(ended.ids), len(cut.ids))
    found = without_ends(torch.ones(2, length), [ended, cut], untrained.end)
    assert found.sum() == 2 * length - 1
    assert found[0, len(ended.ids) - 1] == 0


def test_an_update_makes_the_better_response_likelier_and_the_worse_one_less_likely(some_tasks):
    torch.manual_seed(0)
    policy = build_policy()
    policy.model.eval()
    prompts = [policy.prompt(some_tasks[0])]
    responses = [response(policy, text) for text in TEXTS[:2]]
    length = max(len(r.ids) for r in responses)
    padded = torch.tensor([[*r.ids, *[policy.end] * (length - len(r.ids))] for r in responses])

    def likelihood():
        with torch.no_grad():
            states = policy.hidden(policy.see(prompts).repeated(2), padded)
            each = policy.logits(states).log_softmax(-1).gather(2, padded[..., None])[..., 0]
        return each[0].sum() - each[1].sum()

    before = likelihood()
    advantages = torch.tensor([1.0, -1.0])[:, None].expand(2, length).clone()
    advantages[padded == policy.end] = 0.0
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.05)
    numbers = update(policy, [optimizer], prompts, responses, advantages)
    assert likelihood() > before
    assert numbers["gradient"] > 0
    assert numbers["entropy"] > 0


def test_without_advantages_nothing_moves_whatever_the_momentum(some_tasks):
    torch.manual_seed(0)
    policy = build_policy()
    prompts = [policy.prompt(some_tasks[0])]
    responses = [response(policy, text) for text in TEXTS[:2]]
    length = max(len(r.ids) for r in responses)
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.05, momentum=0.9)
    update(policy, [optimizer], prompts, responses, torch.ones(2, length))
    before = [parameter.clone() for parameter in policy.model.parameters()]
    update(policy, [optimizer], prompts, responses, torch.zeros(2, length))
    assert all(map(torch.equal, before, policy.model.parameters()))


def test_the_rate_rises_and_falls():
    factors = [rate_factor(number, 60) for number in range(1, 61)]
    assert max(factors) == factors[9]
    assert factors[0] < 0.1
    assert factors[-1] == pytest.approx(0.1)
