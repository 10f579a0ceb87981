"""The local engine against plain transformers, one prompt at a time."""

import asyncio
import random

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.checkpoint import load_checkpoint
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.errors import (
    CheckpointError,
    EngineClosedError,
    EngineError,
    InputError,
    PromptTooLongError,
)
from vrprm_reward.images import PixelLimits, final_pixels
from vrprm_reward.scoring.profile import load_profile

TEMPLATE = load_profile("demo").conversation
WORDS = "red blue circle square top left There are shapes in the picture 1 2 3 .".split()


class Oracle:
    """One prompt at a time, with transformers' own generate and forward, nothing padded."""

    def __init__(self, folder) -> None:
        checkpoint = load_checkpoint(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.engine = LocalEngine(checkpoint, template=TEMPLATE)
        self.encoder = self.engine._encoder
        self.engine.close()

    def inputs(self, prompt):
        encoded = self.encoder.encode(prompt)
        ids = torch.from_numpy(encoded.ids)[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["mm_token_type_ids"] = (ids == self.encoder.image_token_id).int()
        if encoded.images:
            inputs["pixel_values"], inputs["image_grid_thw"] = self.encoder.pixels(encoded.images)
        return inputs

    @torch.inference_mode()
    def judge(self, prompt):
        self.model.model.rope_deltas = None
        log_p = self.model(**self.inputs(prompt)).logits[0, -1].log_softmax(-1)
        return [float(log_p[i]) for i in self.encoder.verdict_ids]

    @torch.inference_mode()
    def generate(self, prompt, max_tokens):
        self.model.model.rope_deltas = None
        inputs = self.inputs(prompt)
        out = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        return self.encoder.tokenizer.decode(new, skip_special_tokens=True)


def prompts(count: int, seed: int = 0):
    """Prompts of many lengths, with no, one or two images of several sizes."""
    rng = random.Random(seed)
    for _ in range(count):
        pictures = [
            Image.effect_noise((rng.randint(40, 150), rng.randint(40, 150)), 90).convert("RGB")
            for _ in range(rng.choice((0, 1, 1, 2)))
        ]
        images = final_pixels(pictures, PixelLimits()) if pictures else ()
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 60)))
        yield Prompt((Message("system", (text[:30],)), Message("user", (*images, text))))


@pytest.fixture(scope="module", params=["random_qwen3_vl", "random_qwen2_5_vl"])
def folder(request):
    return request.getfixturevalue(request.param)


def gather(engine, calls):
    async def run():
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_judgements_in_batches_equal_plain_forward_passes(folder):
    oracle = Oracle(folder)
    engine = LocalEngine.load(folder, template=TEMPLATE)
    asked = list(prompts(24))
    answers = gather(engine, [engine.judge(p, share=i) for i, p in enumerate(asked)])
    engine.close()
    for prompt, answer in zip(asked, answers, strict=True):
        assert [answer.log_p0, answer.log_p1] == pytest.approx(oracle.judge(prompt), abs=1e-4)


def test_thinking_in_batches_equals_transformers_generate(folder):
    oracle = Oracle(folder)
    engine = LocalEngine.load(folder, template=TEMPLATE)
    asked = list(prompts(12, seed=3))
    calls = [engine.generate(p, max_tokens=12, stop=None, share=i) for i, p in enumerate(asked)]
    answers = gather(engine, calls)
    engine.close()
    assert [a.text for a in answers] == [oracle.generate(p, 12) for p in asked]


def test_generation_ends_at_the_stop_string_and_says_so(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    prompt = next(prompts(1))
    free = gather(engine, [engine.generate(prompt, max_tokens=16, stop=None, share=0)])[0]
    stop = free.text[len(free.text) // 2 :][:2]
    cut = gather(engine, [engine.generate(prompt, max_tokens=16, stop=stop, share=0)])[0]
    engine.close()
    assert (free.finish, cut.finish) == ("length", "stop")
    assert stop in cut.text
    assert free.text.startswith(cut.text)
    assert cut.generated_tokens < free.generated_tokens == 16


def test_an_image_changes_what_the_model_says(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    noise = [Image.effect_noise((96, 96), sigma).convert("RGB") for sigma in (10, 120)]
    one, other = final_pixels(noise, PixelLimits())
    first = Prompt((Message("user", (one, "What?")),))
    second = Prompt((Message("user", (other, "What?")),))
    answers = gather(engine, [engine.judge(p, share=0) for p in (first, second)])
    engine.close()
    assert answers[0].log_p1 != pytest.approx(answers[1].log_p1, abs=1e-6)


def test_a_model_error_fails_its_batch_and_the_engine_lives_on(random_qwen3_vl, monkeypatch):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    prompt = next(prompts(1))
    model = engine._scheduler._model
    with monkeypatch.context() as patch:
        patch.setattr(model, "run", lambda segments: 1 / 0)
        failed = gather(engine, [engine.judge(prompt, share=i) for i in range(3)])
    after = gather(engine, [engine.judge(prompt, share=0)])[0]
    engine.close()
    assert all(isinstance(error, EngineError) for error in failed)
    assert "ZeroDivisionError" in str(failed[0])
    assert after.prompt_tokens > 0


def test_closing_fails_what_waits_and_what_comes_later(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    engine.close()
    answer = gather(engine, [engine.judge(next(prompts(1)), share=0)])[0]
    assert isinstance(answer, EngineClosedError)
    assert not engine._scheduler._thread.is_alive()


def test_a_prompt_beyond_the_context_is_refused_before_the_model_runs(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    prompt = Prompt((Message("user", ("word " * 3000,)),))
    answer = gather(engine, [engine.judge(prompt, share=0)])[0]
    engine.close()
    assert isinstance(answer, PromptTooLongError)
    assert answer.limit == 2047


def test_a_text_says_whether_the_context_or_max_tokens_ended_it(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    prompt = next(prompts(1))
    engine._context = len(engine._encoder.encode(prompt)) + 5
    calls = [engine.generate(prompt, max_tokens=n, stop=None, share=n) for n in (5, 6)]
    answers = gather(engine, calls)
    engine.close()
    assert [(a.finish, a.generated_tokens) for a in answers] == [("length", 5), ("context", 5)]


def test_cancelling_a_call_frees_its_place(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    asked = list(prompts(8))

    async def run():
        tasks = [asyncio.create_task(engine.judge(p, share=i)) for i, p in enumerate(asked)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(run())
    engine.close()
    assert all(isinstance(a, asyncio.CancelledError) for a in answers[::2])
    assert all(a.prompt_tokens > 0 for a in answers[1::2])


def test_text_with_an_image_token_is_refused(random_qwen3_vl):
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    prompt = Prompt((Message("user", ("<|image_pad|>",)),))
    answer = gather(engine, [engine.judge(prompt, share=0)])[0]
    engine.close()
    assert isinstance(answer, EngineError)
    assert "1 places for 0 images" in str(answer)


def test_wrong_checkpoints_are_named(tmp_path, random_qwen3_vl):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "nothing")
    text_only = tmp_path / "text"
    text_only.mkdir()
    (text_only / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(CheckpointError, match="'qwen3' model"):
        load_checkpoint(text_only)
    with pytest.raises(InputError, match="'tpu'"):
        load_checkpoint(random_qwen3_vl, device="tpu")
    with pytest.raises(InputError, match="'int8'"):
        load_checkpoint(random_qwen3_vl, dtype="int8")
