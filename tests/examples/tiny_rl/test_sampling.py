import random

import pytest
import torch

from examples.tiny_rl.policy import load_policy
from examples.tiny_rl.problems import Task
from examples.tiny_rl.sampling import respond
from vrprm_reward.demo.scene import draw, random_scene

LENGTH = 12


def sampled(policy, tasks, seed, group=3):
    generator = torch.Generator().manual_seed(seed)
    prompts = [policy.prompt(task) for task in tasks]
    return respond(policy, prompts, group=group, generator=generator, longest=LENGTH)


def test_sampling_with_a_cache_chooses_as_the_whole_forward_pass_does(untrained, some_tasks):
    prompts = [untrained.prompt(task) for task in some_tasks]
    responses = respond(untrained, prompts, group=1, generator=None, longest=LENGTH)
    length = max(len(response.ids) for response in responses)
    padded = torch.tensor([[*r.ids, *[untrained.end] * (length - len(r.ids))] for r in responses])
    with torch.no_grad():
        logits = untrained.logits(untrained.hidden(untrained.see(prompts), padded))
    for response, row in zip(responses, logits, strict=True):
        top = row[: len(response.ids)].max(-1).values
        chosen = row[torch.arange(len(response.ids)), list(response.ids)]
        assert torch.allclose(chosen, top, atol=1e-4)


def test_the_same_seed_gives_the_same_responses_and_another_seed_others(untrained, some_tasks):
    first = sampled(untrained, some_tasks, 1)
    assert first == sampled(untrained, some_tasks, 1)
    assert first != sampled(untrained, some_tasks, 2)
    assert len(first) == 3 * len(some_tasks)


def test_reserved_tokens_are_never_sampled(untrained, some_tasks):
    reserved = set(untrained.encoder.tokenizer.get_added_vocab().values()) - {untrained.end}
    with torch.no_grad():
        logits = untrained.logits(torch.randn(5, 128))
    assert torch.isinf(logits[:, sorted(reserved)]).all()
    assert torch.isfinite(logits).sum(-1).eq(logits.shape[1] - len(reserved)).all()


def test_what_is_seen_depends_on_the_picture(untrained, some_tasks):
    rng = random.Random(0)
    task = some_tasks[0]
    other = Task(task.question, draw(random_scene(rng), rng))
    seen = untrained.see([untrained.prompt(task), untrained.prompt(other)])
    words = ~seen.visual[0]
    assert torch.equal(seen.embeds[0, words], seen.embeds[1, words])
    assert not torch.allclose(seen.embeds[0], seen.embeds[1])


def test_prompts_of_different_length_are_refused(untrained, some_tasks):
    longer = untrained.asked(some_tasks[0].image, "How many are there? " * 3)
    with pytest.raises(ValueError, match="equally long"):
        untrained.see([untrained.prompt(some_tasks[0]), longer])


def test_a_policy_comes_back_from_its_folder_as_it_was(untrained, some_tasks, tmp_path):
    untrained.save(tmp_path)
    assert sampled(load_policy(tmp_path), some_tasks, 5) == sampled(untrained, some_tasks, 5)
