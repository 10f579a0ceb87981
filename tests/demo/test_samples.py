"""Training samples are what the scorer would show, and trees give what separate prompts give."""

import random
from itertools import islice

import pytest
import torch

from vrprm_reward import load_profile
from vrprm_reward.demo import drills, world
from vrprm_reward.demo.losses import losses, tree_inputs
from vrprm_reward.demo.optimizers import learning_rate
from vrprm_reward.demo.recipe import STAGES
from vrprm_reward.demo.samples import (
    case_of,
    check_sample,
    judge_sample,
    random_samples,
    see_sample,
    think_sample,
    thinking_of,
)
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.parse import Thought

FRAMES_WITH_JUDGEMENTS = ("demo", "multi_turn", "answer_block", "boxed_continuation")


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
            notes = Thought(world.written(thinking_of(example, profile)))
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
    words = {"step", "claim", "truth", "tick", "number", "verdict"}
    assert set(found) == {"place", "colour", "shape", "count", "think"} | words
    guessing = torch.log(torch.tensor(float(len(encoder.tokenizer))))
    assert all(abs(loss.item() - guessing) < 1.5 for loss in found.values())


@pytest.mark.parametrize("name", ["score_json", "answer_block"])
def test_thinking_checks_every_step_and_ends_in_verdicts(name, examples, encoder):
    profile = load_profile(name)
    for example in examples:
        sample = think_sample(example, profile, encoder)
        said = [encoder.tokenizer.decode([t.token]) for t in sample.targets if t.task == "verdict"]
        assert said == [(" wrong", " right")[label] for label in example.labels]
        written = [target.token for target in verdicts_of(sample)]
        in_text = [encoder.verdict_ids[label] for label in example.labels]
        assert written == (in_text if name == "score_json" else [])


def test_a_tick_says_whether_the_claim_before_it_is_the_truth_before_that(encoder):
    example = drills.drill_example(random.Random(0))
    sample = check_sample(example, world.counts(example.scene), load_profile("demo"), encoder)
    told = {t.place + 1: (encoder.tokenizer.decode([t.token]), t.task) for t in sample.targets}
    ticks = [place for place, (_, task) in told.items() if task == "tick"]
    right = []
    for place in ticks:
        claim, task = told[place - 1]
        truth = next(told[p][0] for p in range(place - 2, 0, -1) if told[p][1] == "truth")
        assert task == "claim"
        assert (told[place][0] == " yes") == (claim.upper() == truth)
        right.append(claim.upper() == truth)
    assert 0 < sum(right) < len(right)


def test_without_the_picture_nothing_is_asked_that_only_it_shows(encoder):
    example = drills.quiz_example(random.Random(0))
    known = world.notes(example.scene)
    blind = check_sample(example, known, load_profile("demo"), encoder)
    seeing = check_sample(example, known, load_profile("demo"), encoder, picture=True)
    assert not blind.images
    assert len(seeing.images) == 1
    seen = {"place", "colour", "shape"}
    assert seen.isdisjoint(target.task for target in blind.targets)
    assert seen <= {target.task for target in seeing.targets}


@pytest.mark.parametrize("task", sorted({share for stage in STAGES for share in stage.shares}))
def test_every_kind_of_sample_of_the_stages_asks_for_what_stands_there(task, encoder):
    profiles = {"demo": (load_profile("demo"), 1.0)}
    for sample in islice(random_samples(random.Random(0), profiles, encoder, {task: 1.0}), 3):
        assert sample.targets
        for target in sample.targets:
            if target.task != "judge":
                assert sample.ids[target.place + 1] == target.token


def test_the_learning_rate_warms_up_and_then_falls_in_a_straight_line():
    rates = [learning_rate(update, 1000) for update in (0, 24, 49, 500, 750, 1000)]
    assert rates[:3] == pytest.approx([0.02, 0.5, 1 - 0.99 * 0.049])
    assert rates[3:] == pytest.approx([0.505, 0.2575, 0.01])


def test_noise_makes_prompts_longer_and_asks_for_the_same_kinds_of_words(encoder):
    profiles = {"demo": (load_profile("demo"), 1.0)}
    plain, noisy = (
        [*islice(random_samples(random.Random(2), profiles, encoder, {"think": 1.0}, share), 20)]
        for share in (0.0, 1.0)
    )
    assert sum(map(len, noisy)) > 1.15 * sum(map(len, plain))
    tasks = [
        {target.task for sample in found for target in sample.targets} for found in (plain, noisy)
    ]
    assert tasks[0] == tasks[1]
