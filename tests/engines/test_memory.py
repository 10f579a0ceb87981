"""Running out of memory: passes, keys and values shrink, sequences wait, nothing is lost."""

import asyncio
import logging

import pytest
import torch
from PIL import Image

from tests.engines.test_local_engine import gather
from tests.engines.test_sharing import (
    assert_equals_oracle,
    growing_prompts,
    judge_in_lockstep,
)
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local import kv_memory, limits
from vrprm_reward.errors import EngineError
from vrprm_reward.images import PixelLimits, final_pixels

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


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
    assert engine._scheduler._limits.shrunk >= 3
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
    assert engine._scheduler._limits.shrunk > 0
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


@pytest.mark.parametrize("where", ["growth", "start"])
def test_memory_that_is_out_once_neither_stops_nor_fails_anything(load, oracle, monkeypatch, where):
    engine = load()
    memory, failed = engine._scheduler._pool._memory, []
    take = memory.take

    def limited(tokens):
        writing = [job for job in engine._scheduler._running if job.written]
        if len(writing) >= (2 if where == "growth" else 1) and not failed:
            failed.append(tokens)
            raise NO_MEMORY
        return take(tokens)

    monkeypatch.setattr(memory, "take", limited)
    rollouts = growing_prompts(rollouts=3, steps=3)

    async def one(share, asked, pause):
        engine.expect(share)
        await asyncio.sleep(pause)
        said = await engine.generate(asked[0], max_tokens=120, stop=None, share=share)
        longer = [Prompt((*p.messages, Message("assistant", (said.text,)))) for p in asked]
        answers = [await engine.judge(prompt, share=share) for prompt in longer]
        engine.release(share)
        return longer, answers

    async def run():
        calls = [one(i, asked, 0.02 * i) for i, asked in enumerate(rollouts)]
        return await asyncio.wait_for(asyncio.gather(*calls), 60)

    for longer, answers in asyncio.run(run()):
        assert_equals_oracle(oracle, longer, answers)
    assert failed


def test_a_sequence_alone_may_outgrow_the_budget(load, oracle):
    (asked,) = growing_prompts(rollouts=1, steps=3)
    engine = load()
    engine._scheduler._pool.budget = len(engine._encoder.encode(asked[0]))
    answers = judge_in_lockstep(engine, [asked])
    assert_equals_oracle(oracle, asked, answers[0])


def test_cache_and_passes_grow_again_as_far_as_they_were_while_all_goes_well(load):
    engine = load(cache_tokens=5000, pass_tokens=1000)
    bounds = engine._scheduler._limits
    while bounds.halve():
        pass
    bounds.let_nobody_begin()
    assert engine._scheduler._pool.budget == 0
    assert bounds.pass_tokens < 2 * limits.SMALLEST_PASS
    for _ in range(limits.CALM_PASSES * 20):
        bounds.went_well()
    assert engine._scheduler._pool.budget == 5000
    assert bounds.pass_tokens == 1000


def pictured(width, height):
    (image,) = final_pixels([Image.new("RGB", (width, height), "red")], PixelLimits())
    return Prompt((Message("user", (image, "What is in the picture?")),))


def test_an_image_too_large_for_the_vision_tower_fails_its_own_call_alone(
    load, oracle, monkeypatch
):
    engine = load(pass_tokens=1024)
    features = engine._vision.features

    def limited(images):
        if any(image.image.width > 128 for image in images):
            raise NO_MEMORY
        return features(images)

    monkeypatch.setattr(engine._vision, "features", limited)
    asked = [pictured(96, 96), pictured(160, 128), pictured(64, 96)]
    good, failed, also_good = gather(
        engine, [engine.judge(prompt, share=i) for i, prompt in enumerate(asked)]
    )
    assert isinstance(failed, EngineError)
    assert "160 x 128 pixels" in str(failed)
    assert "pixels.max_pixels" in str(failed)
    assert_equals_oracle(oracle, asked[::2], [good, also_good])
    assert (engine._scheduler._limits.pass_tokens, engine._scheduler._limits.shrunk) == (1024, 0)


def test_images_are_tried_again_once_idle_sequences_are_gone(load, oracle, monkeypatch):
    engine = load()
    pool, features = engine._scheduler._pool, engine._vision.features
    gather(engine, [engine.judge(growing_prompts(rollouts=1, steps=1)[0][0], share="idle")])

    def limited(images):
        if pool.get("idle") is not None:
            raise NO_MEMORY
        return features(images)

    monkeypatch.setattr(engine._vision, "features", limited)
    asked = [pictured(96, 96)]
    assert_equals_oracle(oracle, asked, gather(engine, [engine.judge(asked[0], share=0)]))


def test_an_error_while_jobs_begin_fails_them_and_not_the_engine(load, oracle, monkeypatch):
    engine = load()
    pool, calls = engine._scheduler._pool, []
    fill = pool.fill_from_others

    def failing(sequence, job):
        calls.append(job)
        if len(calls) == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return fill(sequence, job)

    monkeypatch.setattr(pool, "fill_from_others", failing)
    asked = [Prompt((Message("user", (word * 30,)),)) for word in ("red ", "blue ", "circle ")]
    calls_at_once = [engine.judge(prompt, share=i) for i, prompt in enumerate(asked)]
    answers = gather(engine, calls_at_once)
    assert any(isinstance(answer, EngineError) for answer in answers)
    after = gather(engine, [engine.judge(prompt, share=object()) for prompt in asked])
    assert_equals_oracle(oracle, asked, after)


def test_where_a_large_slab_finds_no_memory_one_row_may(monkeypatch):
    shape = kv_memory.CacheShape(1, 1, 8, torch.float32, torch.device("cpu"), token_major=True)
    memory = kv_memory.KVMemory(shape, 10**6)
    slab = kv_memory.Slab

    def limited(shape, capacity, rows):
        if rows > 8:
            raise NO_MEMORY
        return slab(shape, capacity, rows)

    monkeypatch.setattr(kv_memory, "Slab", limited)
    rows = [memory.take(100)[0].rows for _ in range(9)]
    assert rows == [8] * 8 + [1]


def test_slabs_keep_within_the_budget():
    shape = kv_memory.CacheShape(1, 1, 8, torch.float32, torch.device("cpu"), token_major=True)
    memory = kv_memory.KVMemory(shape, budget=128 * 20)
    slabs = {id(slab): slab.rows for slab, _ in (memory.take(100) for _ in range(20))}
    assert list(slabs.values()) == [8, 12]
