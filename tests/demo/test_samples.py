"""Training samples are what the scorer would show, and trees give what separate prompts give."""

import random

import pytest
import torch

from vrprm_reward import load_profile
from vrprm_reward.demo import world
from vrprm_reward.demo.model import build_model
from vrprm_reward.demo.moves import NUMBERS
from vrprm_reward.demo.samples import (
    case_of,
    claims_sample,
    judge_sample,
    recall_sample,
    see_sample,
    think_sample,
    thinking_of,
)
from vrprm_reward.demo.train import learning_rate, losses, make_encoder, tree_inputs
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.parse import Thought

FRAMES_WITH_JUDGEMENTS = ("demo", "multi_turn", "answer_block", "boxed_continuation")


@pytest.fixture(scope="module")
def model(demo_tokenizer):
    torch.manual_seed(0)
    return build_model(demo_tokenizer).eval()


@pytest.fixture(scope="module")
def encoder(demo_tokenizer, model):
    return make_encoder(demo_tokenizer, load_profile("demo"), model)


@pytest.fixture(scope="module")
def examples():
    rng = random.Random(1)
    found = [world.random_example(rng) for _ in range(30)]
    return [example for example in found if 2 <= len(example.steps) <= 6][:4]


def verdicts_of(sample):
    return [target for target in sample.targets if target.task == "judge"]


@pytest.mark.parametrize("name", FRAMES_WITH_JUDGEMENTS)
def test_each_target_asks_what_the_scorer_would_ask(name, examples, encoder):
    profile = load_profile(name)
    for example in examples:
        sample = judge_sample(example, profile, encoder)
        ends = (*sample.branches[1:], len(sample))
        for index, target in enumerate(verdicts_of(sample)):
            notes = Thought(thinking_of(example, profile))
            prompt = FRAMES[profile.frame].judge(
                profile, case_of(example, profile), notes, example.labels[:index]
            )
            if sample.branches:
                shared = sample.branches[0]
                path = sample.ids[:shared] + sample.ids[sample.branches[index] : ends[index]]
            else:
                path = sample.ids[: target.place + 1]
            assert path == tuple(encoder.encode(prompt).ids)
            assert target.token == encoder.verdict_ids[example.labels[index]]


def test_a_tree_gives_the_logits_of_its_separate_prompts(examples, encoder, model):
    trees = [judge_sample(example, load_profile("demo"), encoder) for example in examples]
    assert all(tree.branches for tree in trees)
    length = max(map(len, trees))
    ids = torch.tensor([[*tree.ids, *[0] * (length - len(tree))] for tree in trees])
    mask, positions = tree_inputs(trees, length)
    with torch.no_grad():
        packed = model.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        for row, tree in enumerate(trees):
            ends = (*tree.branches[1:], len(tree))
            for start, end, target in zip(tree.branches, ends, verdicts_of(tree), strict=True):
                path = torch.tensor([[*tree.ids[: tree.branches[0]], *tree.ids[start:end]]])
                alone = model.model(input_ids=path, use_cache=False).last_hidden_state[0, -1]
                assert torch.allclose(packed[row, target.place], alone, atol=1e-4)


def test_losses_are_means_over_the_targets_of_each_task(examples, encoder, model):
    profile = load_profile("demo")
    batch = [
        see_sample(random.Random(0), profile, encoder),
        think_sample(examples[0], profile, encoder),
    ]
    found = losses(model, encoder, batch)
    assert set(found) == {"see", "colour", "shape", "count", "think"}
    guessing = torch.log(torch.tensor(float(len(encoder.tokenizer))))
    assert all(abs(loss.item() - guessing) < 1.5 for loss in found.values())


def test_recall_asks_only_for_what_was_said_before(encoder):
    for seed in range(20):
        sample = recall_sample(random.Random(seed), encoder)
        assert {target.task for target in sample.targets} == {"recall"}
        for place, token, _ in sample.targets:
            assert sample.ids[place + 1] == token
            assert token in sample.ids[: place + 1]


@pytest.mark.parametrize("name", ["score_json", "answer_block"])
def test_thinking_goes_through_the_steps_and_says_each_verdict(name, examples, encoder):
    profile = load_profile(name)
    for example in examples:
        sample = think_sample(example, profile, encoder)
        verdicts = verdicts_of(sample)
        asked = [encoder.verdict_ids[label] for label in example.labels]
        times = 2 if name == "answer_block" else 1
        assert [target.token for target in verdicts] == [i for i in asked for _ in range(times)]
        text = encoder.tokenizer.decode(sample.ids)
        assert all(text.count(step.text) == 2 for step in example.steps if "Wait" not in step.text)


@pytest.mark.parametrize(
    ("name", "before"),
    [("demo", "<|im_start|>assistant\n"), ("boxed_continuation", "\\boxed{")],
)
def test_claims_are_asked_for_right_behind_them(name, before, encoder):
    sample = claims_sample(random.Random(0), load_profile(name), encoder)
    asked = {target.place: target.token for target in verdicts_of(sample)}
    behind = {
        place: sample.ids[place + 1]
        for place in asked
        if encoder.tokenizer.decode(sample.ids[: place + 1]).endswith(before)
    }
    assert len(behind) == 10
    assert all(asked[place] == verdict for place, verdict in behind.items())
    for place, verdict in asked.items():
        assert verdict == next(v for end, v in behind.items() if end >= place)
    recalled = [t.token for t in sample.targets if t.task == "recall"]
    assert recalled
    assert all(encoder.tokenizer.decode([token]).strip() in NUMBERS for token in recalled)


def test_the_learning_rate_warms_up_holds_and_falls():
    rates = [learning_rate(update, 1000, 1.0) for update in (0, 99, 300, 500, 750, 999)]
    assert rates[:4] == [0.01, 1.0, 1.0, 1.0]
    assert rates[3] > rates[4] > rates[5] > 0.019
