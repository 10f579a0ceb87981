"""What the local engine computes once, and that doing so changes no answer."""

import asyncio
import random

import pytest
import torch
from PIL import Image

from tests.engines.test_local_engine import WORDS, gather, prompts
from vrprm_reward import load_process_reward, load_profile
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.images import PixelLimits, final_pixels


def words(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def growing_prompts(seed=0, rollouts=4, steps=4, image=True):
    """For each rollout the prompts of its steps: one question, many candidates, growing text."""
    rng = random.Random(seed)
    noise = Image.effect_noise((96, 96), 80).convert("RGB")
    images = final_pixels([noise], PixelLimits()) if image else ()
    question = words(rng, 40)
    found = []
    for _ in range(rollouts):
        text = question + words(rng, 30)
        found.append([])
        for step in range(steps):
            text += f" Step {step}: " + words(rng, 10)
            message = Message("user", (*images, text, "Judge"))
            found[-1].append(Prompt((message,)))
    return found


def assert_equals_oracle(oracle, asked, answers):
    for prompt, answer in zip(asked, answers, strict=True):
        assert [answer.log_p0, answer.log_p1] == pytest.approx(oracle.judge(prompt), abs=1e-4)


def judge_in_lockstep(engine, rollouts):
    async def one(share, asked):
        engine.expect(share)
        answers = [await engine.judge(prompt, share=share) for prompt in asked]
        engine.release(share)
        return answers

    async def run():
        return await asyncio.gather(*(one(i, asked) for i, asked in enumerate(rollouts)))

    return asyncio.run(run())


def distinct_tokens(engine, rollouts) -> int:
    """Nodes of the tree of all prompts: what must be computed at least."""
    nodes = set()
    for asked in rollouts:
        for prompt in asked:
            keys = tuple(engine._encoder.encode(prompt).keys.tolist())
            nodes |= {hash(keys[: n + 1]) for n in range(len(keys))}
    return len(nodes)


def test_lockstep_computes_every_prefix_nearly_once_and_answers_as_the_oracle(load, oracle):
    rollouts = growing_prompts(rollouts=6, steps=6)
    engine = load(pass_tokens=300)
    answers = judge_in_lockstep(engine, rollouts)
    for asked, found in zip(rollouts, answers, strict=True):
        assert_equals_oracle(oracle, asked, found)
    assert engine.stats.tokens <= 1.1 * distinct_tokens(engine, rollouts)
    assert engine.images_encoded == 1


def test_steps_asked_at_once_branch_off_one_prefix(load, oracle):
    (asked,) = growing_prompts(rollouts=1, steps=8)
    engine = load()
    answers = gather(engine, [engine.judge(p, share="one") for p in asked])
    assert_equals_oracle(oracle, asked, answers)
    assert engine.stats.passes <= 3
    full_prompts = sum(len(engine._encoder.encode(p)) for p in asked)
    assert engine.stats.tokens < 0.7 * full_prompts


@pytest.mark.parametrize("pass_tokens", [7, 64, 5000])
@pytest.mark.parametrize("cache_tokens", [300, 100_000])
def test_small_passes_and_a_small_cache_change_no_answer(load, oracle, pass_tokens, cache_tokens):
    rollouts = growing_prompts(seed=2, rollouts=5, steps=3)
    engine = load(pass_tokens=pass_tokens, cache_tokens=cache_tokens)
    for asked, found in zip(rollouts, judge_in_lockstep(engine, rollouts), strict=True):
        assert_equals_oracle(oracle, asked, found)


def test_a_judgement_goes_on_from_the_keys_of_its_own_thinking(load, oracle):
    engine = load()
    prompt = growing_prompts(rollouts=1, steps=1)[0][0]

    async def run():
        thinking = await engine.generate(prompt, max_tokens=30, stop=None, share=1)
        before = engine.stats.tokens
        turn = Message("assistant", (thinking.text,))
        follow = Prompt((*prompt.messages, turn, Message("user", ("Judge",))))
        return follow, await engine.judge(follow, share=1), engine.stats.tokens - before

    follow, answer, pushed = asyncio.run(run())
    assert_equals_oracle(oracle, [follow], [answer])
    assert pushed < len(engine._encoder.encode(prompt)) / 2
    assert engine.images_encoded == 1


def test_rows_of_different_lengths_leave_and_join_without_disturbing_others(load, oracle):
    engine = load(pass_tokens=80)
    asked = list(prompts(14, seed=8))
    limits = [1 + 3 * (i % 7) for i in range(len(asked))]
    calls = [
        engine.generate(p, max_tokens=n, stop=None, share=i)
        for i, (p, n) in enumerate(zip(asked, limits, strict=True))
    ]
    answers = gather(engine, calls)
    for prompt, limit, answer in zip(asked, limits, answers, strict=True):
        assert answer.text == oracle.generate(prompt, limit)
        assert answer.generated_tokens <= limit


def test_the_image_cache_keeps_to_its_size(load):
    engine = load(image_cache_bytes=0)
    rollouts = growing_prompts(rollouts=2, steps=1)
    gather(engine, [engine.judge(asked[0], share=i) for i, asked in enumerate(rollouts)])
    assert engine._vision._bytes == 0
    assert engine.images_encoded >= 1


def test_cancelling_half_of_a_hundred_calls_loses_none_of_the_others(load, oracle):
    engine = load(pass_tokens=256)
    asked = list(prompts(100, seed=4))

    async def run():
        tasks = [
            asyncio.create_task(
                engine.judge(p, share=i)
                if i % 4 < 2
                else engine.generate(p, max_tokens=6, stop=None, share=i)
            )
            for i, p in enumerate(asked)
        ]
        for round_ in range(5):
            await asyncio.sleep(0.02)
            for task in tasks[round_ * 20 : round_ * 20 + 20 : 2]:
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(run())
    for index in range(1, 100, 2):
        if index % 4 < 2:
            assert_equals_oracle(oracle, [asked[index]], [answers[index]])
        else:
            assert answers[index].text == oracle.generate(asked[index], 6)
    again = gather(engine, [engine.judge(asked[0], share="again")])
    assert_equals_oracle(oracle, [asked[0]], again)
    assert engine._scheduler._running == []


@pytest.fixture
def quick_profile():
    profile = load_profile("demo")
    return profile.model_copy(update={"think": profile.think.model_copy(update={"max_tokens": 12})})


def test_both_schedules_give_the_same_scores_on_a_real_model(
    random_qwen3_vl, quick_profile, world_rollouts
):
    found = {}
    for schedule in ("lockstep", "fixed_point"):
        reward = load_process_reward(random_qwen3_vl, profile=quick_profile, schedule=schedule)
        found[schedule] = reward.score(world_rollouts)
        reward.close()
    for one, other in zip(found["lockstep"], found["fixed_point"], strict=True):
        assert one.scored
        assert one.judgements == other.judgements
        assert one.p_correct == pytest.approx(other.p_correct, abs=1e-5)
        assert other.usage.rounds <= len(other.steps)


def test_deterministic_runs_give_the_same_bits(random_qwen3_vl, quick_profile, world_rollouts):
    threads = torch.get_num_threads()
    found = []
    for _ in range(2):
        reward = load_process_reward(
            random_qwen3_vl,
            profile=quick_profile,
            local=LocalOptions(deterministic=True, pass_tokens=200),
        )
        found.append([score.p_correct for score in reward.score(world_rollouts)])
        reward.close()
    torch.set_num_threads(threads)
    assert found[0] == found[1]
    assert all(found[0])
