"""What the local engine computes once, and that doing so changes no answer."""

import asyncio
import logging
import random

import pytest
import torch
from PIL import Image

from tests.engines.test_local_engine import TEMPLATE, WORDS, Oracle, gather, prompts
from vrprm_reward import load_process_reward, load_profile
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local import kv_memory
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import EngineError
from vrprm_reward.images import PixelLimits, final_pixels


@pytest.fixture(scope="module")
def oracle(random_qwen3_vl):
    return Oracle(random_qwen3_vl)


@pytest.fixture
def load(random_qwen3_vl):
    engines = []

    def load_engine(**options):
        options = LocalOptions(**options)
        engines.append(LocalEngine.load(random_qwen3_vl, template=TEMPLATE, options=options))
        return engines[-1]

    yield load_engine
    for engine in engines:
        engine.close()


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


def out_of_memory_beyond(model, limit, error):
    run = model.run

    def limited(segments):
        if sum(len(s.ids) for s in segments) > limit:
            raise error
        return run(segments)

    return limited


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_of_memory_halves_the_passes_and_loses_nothing(
    load, oracle, monkeypatch, caplog, error
):
    engine = load(pass_tokens=2048)
    model = engine._scheduler._model
    monkeypatch.setattr(model, "run", out_of_memory_beyond(model, 300, error))
    rollouts = growing_prompts(rollouts=8, steps=3)
    with caplog.at_level(logging.WARNING):
        answers = judge_in_lockstep(engine, rollouts)
    for asked, found in zip(rollouts, answers, strict=True):
        assert_equals_oracle(oracle, asked, found)
    assert engine.stats.halvings >= 3
    assert sum("out of memory" in r.message for r in caplog.records) == 1


async def think(engine, prompt):
    share = object()
    answer = await engine.generate(prompt, max_tokens=40, stop=None, share=share)
    engine.release(share)
    return answer


@pytest.mark.parametrize("slabs", [1, 2])
def test_keys_and_values_without_memory_wait_for_others_and_nothing_is_lost(
    load, oracle, monkeypatch, caplog, slabs
):
    engine = load()
    memory = engine._scheduler._pool._memory
    monkeypatch.setattr(kv_memory, "ROWS_PER_SLAB", 2)
    take = memory.take

    def limited(tokens):
        # While a row is exchanged for a larger one, both are taken.
        if sum(map(len, memory._slabs.values())) > slabs and not any(
            slab.free for slab in memory._slabs[kv_memory._capacity_for(tokens)]
        ):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return take(tokens)

    monkeypatch.setattr(memory, "take", limited)
    rollouts = growing_prompts(rollouts=8, steps=3)
    thinking = [asked[0] for asked in rollouts]
    with caplog.at_level(logging.WARNING):
        answers = judge_in_lockstep(engine, rollouts)
        texts = gather(engine, [think(engine, prompt) for prompt in thinking])
    for asked, found in zip(rollouts, answers, strict=True):
        assert_equals_oracle(oracle, asked, found)
    assert [t.text for t in texts] == [oracle.generate(p, 40) for p in thinking]
    assert engine.stats.halvings > 0
    assert sum("out of memory" in r.message for r in caplog.records) == 1


def test_memory_that_is_out_for_good_fails_the_calls_and_not_the_engine(load, monkeypatch):
    engine = load(pass_tokens=128)
    model = engine._scheduler._model
    error = torch.OutOfMemoryError("CUDA out of memory")
    prompt = growing_prompts(rollouts=1, steps=1)[0][0]
    with monkeypatch.context() as patch:
        patch.setattr(model, "run", out_of_memory_beyond(model, 0, error))
        (answer,) = gather(engine, [engine.judge(prompt, share=0)])
    assert isinstance(answer, EngineError)
    (answer,) = gather(engine, [engine.judge(prompt, share=1)])
    assert answer.prompt_tokens > 0


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
