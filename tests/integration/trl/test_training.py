"""Real GRPO runs on the CPU: pictures, a policy that writes steps, the demo checkpoint as judge."""

import copy
import importlib.util
import itertools
import math
import sys
from functools import partial

import pytest
import torch

from tests.integration.processes import ROOT
from vrprm_reward import load_process_reward
from vrprm_reward.rewards.advantage import leave_one_out, to_tokens
from vrprm_reward.rewards.combine import RewardRule
from vrprm_reward.types import ProcessScore
from vrprm_trl import ProcessRewardFunction, StepGRPOTrainer

FOLDER = ROOT / "examples" / "trl"
SUM = RewardRule(combination="sum")
OWN = RewardRule(combination="gated", credit="own")

pytestmark = pytest.mark.timeout(900)


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def example():
    sys.path.insert(0, str(FOLDER))
    return load_example("train")


@pytest.fixture(scope="session")
def policy(example):
    torch.manual_seed(0)
    model, processor = example.load_policy()
    example.warm_up(model, processor, 60)
    return model, processor


@pytest.fixture
def options(example, tmp_path):
    found = example.config(example.options(["--seed", "3", "--batch", "8"]))
    found.output_dir = str(tmp_path)
    return found


def trained(example, policy, options, reward, trainer, **more):
    model, processor = policy
    found = trainer(
        model=copy.deepcopy(model),
        reward_funcs=reward,
        args=options,
        train_dataset=example.dataset(3, 24),
        processing_class=processor,
        **more,
    )
    found.train()
    return found


def test_the_example_trains_for_twenty_steps_and_says_what_it_learned(
    example, policy, reward_server, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    args = example.options(["--reward", reward_server.url, "--steps", "20", "--batch", "8"])
    model, processor = policy
    before, after, logged = example.learn(copy.deepcopy(model), processor, args)
    printed = capsys.readouterr().out
    assert len(logged) == 20
    for row in logged:
        assert 0 <= row["rewards/process_reward/p_correct/mean"] <= 1
        assert row["rewards/process_reward/masked_share"] == 0
        assert math.isfinite(row["loss"])
        assert math.isfinite(row["reward"])
        assert {f"rewards/process_reward/{name}/mean" for name in ("outcome", "steps")} <= set(row)
    assert len({row["reward"] for row in logged}) > 3  # an update without a right answer has 0
    assert any(row["grad_norm"] > 0 for row in logged)
    assert before.keys() == after.keys()
    for text in ("first quarter", "p_correct/mean", "right answers"):
        assert text in printed


def test_the_example_credits_steps_when_it_is_told_to(
    example, reward_server, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    by_sum = partial(ProcessRewardFunction, rule=SUM)  # by default wrong answers have no steps
    monkeypatch.setattr(example, "ProcessRewardFunction", by_sum)
    sizes = ["--steps", "2", "--warm-up", "10", "--batch", "8"]
    _, _, logged = example.main(["--reward", reward_server.url, "--dense", *sizes])
    assert len(logged) == 2
    assert all(row["rewards/process_reward/masked_share"] == 0 for row in logged)
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in logged)
    # What TRL is told is the outcome: the steps have advantages of their own.
    assert all(
        row["reward"] == pytest.approx(row["rewards/process_reward/outcome/mean"]) for row in logged
    )
    assert "right answers" in capsys.readouterr().out


class EveryFifthFails:
    """A process reward that cannot score every fifth rollout."""

    def __init__(self, reward):
        self.reward, self.count, self.failed = reward, 0, 0

    def score(self, rollouts):
        raise NotImplementedError

    async def ascore(self, rollouts):
        scores = await self.reward.ascore(rollouts)
        for index in range(len(scores)):
            self.count += 1
            if self.count % 5 == 0:
                self.failed += 1
                scores[index] = ProcessScore(
                    status="unscored_ours", reason="server_timeout", detail="late"
                )
        return scores


@pytest.mark.parametrize("dense", [False, True])
def test_a_fifth_of_the_rows_can_be_unscored(example, policy, options, reward_server, dense):
    from trl import GRPOTrainer

    options.max_steps = 5
    judge = EveryFifthFails(load_process_reward(reward_server.url))
    reward = ProcessRewardFunction(judge, outcome="exact", steps=dense)
    trainer = trained(example, policy, options, reward, StepGRPOTrainer if dense else GRPOTrainer)
    logged = [row for row in trainer.state.log_history if "reward" in row]
    shares = [row["rewards/process_reward/masked_share"] for row in logged]
    assert judge.failed == 8
    assert sum(shares) / len(shares) == pytest.approx(0.2)
    assert {row["rewards/process_reward/reason/server_timeout"] for row in logged} <= {0.125, 0.25}
    assert all(math.isfinite(row["reward"]) and math.isfinite(row["loss"]) for row in logged)


class Recorded(StepGRPOTrainer):
    """Keeps what each batch of completions came out with."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.batches = []

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.batches.append((self.kept, self.whole, output))
        return output

    def _on_tokens(self, own, of_steps, output):
        self.kept, self.whole = own, output["advantages"].clone()
        return super()._on_tokens(own, of_steps, output)


def test_by_default_trls_own_advantages_are_weighted_by_what_stands_before(
    example, policy, options, reward_server
):
    options.max_steps = 4
    reward = ProcessRewardFunction(
        load_process_reward(reward_server.url), outcome="exact", steps=True
    )
    trainer = trained(example, policy, options, reward, Recorded)
    weighted = 0
    for kept, whole, output in trainer.batches:
        for row, each in enumerate(kept):
            mask = output["completion_mask"][row].bool()
            found = output["advantages"][row][mask].tolist()
            p = each.reward.p_correct
            weights = [1, *itertools.accumulate(p, min)]
            allowed = [pytest.approx(whole[row].item() * w, abs=1e-5) for w in weights]
            assert found[0] == allowed[0]
            assert found[-1] in (allowed[-1], allowed[-2])
            assert all(value in allowed for value in found)
            weighted += bool(whole[row]) and min(p) < 0.5
    assert weighted > 0


def test_tokens_carry_the_advantage_of_their_step(example, policy, options, reward_server):
    options.max_steps = 2
    reward = ProcessRewardFunction(
        load_process_reward(reward_server.url), outcome="exact", steps=True, rule=SUM
    )
    trainer = trained(example, policy, options, reward, Recorded, step_weight=0.5)
    tokenizer = policy[1].tokenizer
    checked = 0
    for kept, _, output in trainer.batches:
        by_hand = leave_one_out([torch.tensor(k.reward.rewards) for k in kept], [0] * len(kept))
        scalar = torch.tensor([k.reward.outcome for k in kept])
        scalar = (scalar - scalar.mean()) / (scalar.std() + 1e-4)
        for row, (each, advantages) in enumerate(zip(kept, by_hand, strict=True)):
            ids = output["completion_ids"][row]
            mask = output["completion_mask"][row]
            # The token that ends a step is the first with which its text is complete.
            ends = [
                next(
                    token
                    for token in range(len(ids))
                    if len(tokenizer.decode(ids[: token + 1], skip_special_tokens=True)) >= step.end
                )
                for step in each.reward.steps
            ]
            expected = scalar[row] + 0.5 * to_tokens(advantages, ends, mask)
            assert torch.allclose(output["advantages"][row], expected, atol=1e-4)
            checked += len(ends)
    assert checked > 16
    assert all(math.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)


def says_nothing(completions, **_):
    """A second reward function, which knows a number for every completion."""
    return [1.0] * len(completions)


def test_a_masked_completion_has_no_advantage_beside_a_second_reward_function(
    example, policy, options, reward_server
):
    options.max_steps = 2
    judge = EveryFifthFails(load_process_reward(reward_server.url))
    reward = ProcessRewardFunction(judge, outcome="exact", steps=True, rule=SUM)
    trainer = trained(example, policy, options, [reward, says_nothing], Recorded)
    masked = [
        (each.reward.masked, bool(output["advantages"][row].any()))
        for kept, _, output in trainer.batches
        for row, each in enumerate(kept)
    ]
    assert judge.failed == sum(is_masked for is_masked, _ in masked) == 3
    assert not any(learns for is_masked, learns in masked if is_masked)
    assert any(learns for is_masked, learns in masked if not is_masked)


def test_step_advantages_need_a_function_that_keeps_steps(example, policy, options):
    from vrprm_reward.errors import InputError

    reward, stepwise = (
        ProcessRewardFunction("http://127.0.0.1:9", rule=OWN, outcome="exact", steps=steps)
        for steps in (False, True)
    )
    with pytest.raises(InputError, match="steps=True"):
        trained(example, policy, options, reward, StepGRPOTrainer)
    with pytest.raises(InputError, match=r"'own' is made for .* 'same_step'"):
        trained(example, policy, options, stepwise, StepGRPOTrainer, step_advantage="process_grpo")
    with pytest.raises(InputError, match="unknown step_advantage"):
        trained(example, policy, options, reward, StepGRPOTrainer, step_advantage="none")
