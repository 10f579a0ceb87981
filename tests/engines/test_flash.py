"""Attention in one call for each slab, with the kernel's arithmetic done by hand on the CPU.

The kernel itself is tested in tests/gpu.
"""

import asyncio
import math

import pytest
import torch

from tests.engines.test_local_engine import TEMPLATE, Oracle, gather, prompts
from vrprm_reward import load_process_reward
from vrprm_reward.demo.evaluate import held_out, rollout_of
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local import flash, kv_memory, pieces
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.engines.local.options import LocalOptions


@pytest.fixture
def calls(monkeypatch):
    """Engines attend as on a GPU; the numbers of sequences in each call of the kernel."""
    made = []

    def varlen(q, keys, values, queries, starts, filled, longest_q, longest, scaling, causal):
        assert queries.dtype == starts.dtype == torch.int32
        assert (q.shape[0], q.shape[1] % keys.shape[1]) == (int(queries[-1]), 0)
        count = len(queries) - 1
        made.append(count)
        output = torch.full_like(q, math.nan)
        lse = torch.full((q.shape[1], q.shape[0]), math.nan)
        for i in range(count):
            first, stop = int(queries[i]), int(queries[i + 1])
            size = int(starts[i + 1] - starts[i]) if filled is None else int(filled[i])
            assert 0 < stop - first <= longest_q
            assert 0 < size <= longest
            k, v = (t[int(starts[i]) :][:size].transpose(0, 1) for t in (keys, values))
            group = q.shape[1] // keys.shape[1]
            k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
            logits = q[first:stop].transpose(0, 1) @ k.transpose(1, 2) * scaling
            if causal:
                seen = torch.ones(stop - first, size).tril(size - (stop - first)).bool()
                logits = logits.masked_fill(~seen, -math.inf)
            output[first:stop] = (logits.softmax(-1) @ v).transpose(0, 1)
            lse[:, first:stop] = logits.logsumexp(-1)
        return output, lse

    monkeypatch.setattr(kv_memory, "flash_can", lambda *_: True)
    monkeypatch.setattr(flash, "varlen", varlen)
    return made


def test_judgements_equal_plain_forward_passes(random_qwen3_vl, calls):
    oracle = Oracle(random_qwen3_vl)
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    asked = list(prompts(24))
    answers = gather(engine, [engine.judge(p, share=i) for i, p in enumerate(asked)])
    engine.close()
    for prompt, answer in zip(asked, answers, strict=True):
        assert [answer.log_p0, answer.log_p1] == pytest.approx(oracle.judge(prompt), abs=1e-4)
    assert max(calls) > kv_memory.ROWS_PER_SLAB  # slabs grow, so that calls stay few


def test_thinking_equals_transformers_generate(random_qwen2_5_vl, calls):
    oracle = Oracle(random_qwen2_5_vl)
    engine = LocalEngine.load(random_qwen2_5_vl, template=TEMPLATE)
    asked = list(prompts(12, seed=3))
    answers = gather(
        engine,
        [engine.generate(p, max_tokens=12, stop=None, share=i) for i, p in enumerate(asked)],
    )
    engine.close()
    assert [a.text for a in answers] == [oracle.generate(p, 12) for p in asked]
    assert calls


def test_branches_of_one_sequence_see_it_and_themselves(random_qwen3_vl, calls):
    oracle = Oracle(random_qwen3_vl)
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    start = " ".join(["There are shapes in the picture."] * 8)
    asked = [Prompt((Message("user", (f"{start} {'red ' * n}",)),)) for n in range(1, 7)]

    async def run():
        await engine.judge(asked[0], share=0)
        return await asyncio.gather(*(engine.judge(prompt, share=0) for prompt in asked))

    answers = asyncio.run(run())
    engine.close()
    assert max(calls) > 1  # how many of them share a call depends on when they come
    for prompt, answer in zip(asked, answers, strict=True):
        assert [answer.log_p0, answer.log_p1] == pytest.approx(oracle.judge(prompt), abs=1e-4)


@pytest.mark.parametrize("schedule", ["lockstep", "fixed_point"])
def test_whole_scores_are_those_of_attention_by_segment(schedule, request):
    rollouts = [rollout_of(example) for example in held_out(6, seed=5)]

    def scores():
        reward = load_process_reward("demo", schedule=schedule, local=LocalOptions())
        found = reward.score(rollouts)
        reward.close()
        return found

    plain = scores()
    made = request.getfixturevalue("calls")
    for one, other in zip(scores(), plain, strict=True):
        assert one.thinking == other.thinking
        assert one.p_correct == pytest.approx(other.p_correct, abs=1e-4)
    assert made


def test_small_passes_go_through_the_model_in_pieces(random_qwen3_vl, calls, monkeypatch):
    sizes = []
    run = pieces.Pieces.run
    monkeypatch.setattr(
        pieces.Pieces, "run", lambda self, e, *more: sizes.append(len(e)) or run(self, e, *more)
    )
    oracle = Oracle(random_qwen3_vl)
    engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE)
    asked = list(prompts(9, seed=5))
    alone = gather(engine, [engine.generate(asked[0], max_tokens=12, stop=None, share="alone")])
    assert min(sizes) == 1
    sizes.clear()
    answers = gather(
        engine,
        [engine.generate(p, max_tokens=12, stop=None, share=i) for i, p in enumerate(asked)],
    )
    engine.close()
    assert [a.text for a in (*answers, *alone)] == [
        oracle.generate(p, 12) for p in (*asked, asked[0])
    ]
    assert max(sizes) > 1


@pytest.fixture
def records(random_qwen3_vl, calls, monkeypatch):
    """A function that generates where recording fails as it is told; and the engine's pieces."""

    def generate_with(record, prepare=lambda cut: None):
        monkeypatch.setattr(pieces._Room, "record", record)
        options = LocalOptions(cuda_graphs=True)
        engine = LocalEngine.load(random_qwen3_vl, template=TEMPLATE, options=options)
        cut = engine._scheduler._model._pieces
        prepare(cut)
        prompt = next(iter(prompts(1)))
        (answer,) = gather(engine, [engine.generate(prompt, max_tokens=12, stop=None, share=0)])
        engine.close()
        assert answer.text == Oracle(random_qwen3_vl).generate(prompt, 12)
        return cut

    return generate_with


def test_where_nothing_can_be_recorded_all_is_computed(records, monkeypatch, caplog):
    def refuse(room, memory):
        raise RuntimeError("operation not permitted when stream is capturing")

    def prepare(cut):
        cut._rooms[256] = pieces._Room(cut._text, 256)
        cut._rooms[256].graphs.append("recorded before")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    cut = records(refuse, prepare)
    assert caplog.text.count("CUDA graphs cannot be used here") == 1
    assert cut._rooms[256].graphs == []


def test_without_memory_it_is_recorded_later(records, monkeypatch, caplog):
    tries = []

    def refuse(room, memory):
        tries.append(room)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    cut = records(refuse)
    assert 2 <= len(tries) <= 12 // pieces.COMPUTED_FIRST
    assert cut._records
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("tokens", "room"), [(1, 8), (8, 8), (9, 16), (33, 64), (64, 64), (65, 128), (129, 192)]
)
def test_tokens_are_rounded_up_to_what_is_recorded(tokens, room):
    assert pieces.room_for(tokens) == room
