"""The local engine on a GPU against itself on the CPU; skipped where there is no GPU.

Run them there with `python -m pytest tests/gpu`.
"""

import asyncio

import pytest
import torch

from benchmarks.common import cases, engine_on, judge_prompt, random_checkpoint
from benchmarks.shapes import small
from vrprm_reward import load_process_reward
from vrprm_reward.demo.evaluate import held_out, rollout_of
from vrprm_reward.engines.local import kv_memory, pieces
from vrprm_reward.engines.local.options import LocalOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

EXAMPLES = held_out(16, seed=31)


def scores_of(schedule="lockstep", **options):
    reward = load_process_reward("demo", schedule=schedule, local=LocalOptions(**options))
    try:
        scores = reward.score([rollout_of(example) for example in EXAMPLES])
    finally:
        reward.close()
    assert [score.detail for score in scores if not score.scored] == []
    return scores


def furthest(first, second):
    pairs = zip(first, second, strict=True)
    return max(abs(p - q) for a, b in pairs for p, q in zip(a.p_correct, b.p_correct, strict=True))


@pytest.fixture(scope="module")
def on_the_cpu():
    return scores_of(device="cpu")


@pytest.fixture(scope="module")
def on_the_gpu():
    return scores_of(device="cuda", dtype="float32")


def test_thinking_and_probabilities_in_float32_are_those_of_the_cpu(on_the_cpu, on_the_gpu):
    assert [s.thinking for s in on_the_gpu] == [s.thinking for s in on_the_cpu]
    assert furthest(on_the_gpu, on_the_cpu) < 1e-3


def test_the_fixed_point_ends_where_lockstep_does(on_the_gpu):
    fixed = scores_of("fixed_point", device="cuda", dtype="float32")
    assert [s.judgements for s in fixed] == [s.judgements for s in on_the_gpu]
    assert furthest(fixed, on_the_gpu) < 1e-3


def test_bfloat16_is_chosen_and_agrees_with_the_truth_as_well(on_the_cpu):
    def right(scores):
        pairs = zip(scores, EXAMPLES, strict=True)
        each = [v == y for s, e in pairs for v, y in zip(s.judgements, e.labels, strict=True)]
        return sum(each) / len(each)

    assert right(scores_of()) > right(on_the_cpu) - 0.02


@pytest.mark.parametrize("at_once", [False, True], ids=["sequences", "branches"])
def test_the_kernel_for_all_slabs_answers_as_attention_by_segment(at_once, monkeypatch):
    checkpoint = random_checkpoint(small(layers=4, width=640))
    asked = cases(3, 4, 5, image_px=160)
    shares = [i if at_once else (i, k) for i in range(len(asked)) for k in range(5)]
    prompts = [judge_prompt(case, [1] * k) for case in asked for k in range(5)]

    def answers():
        engine = engine_on(checkpoint)
        calls = [engine.judge(p, share=s) for p, s in zip(prompts, shares, strict=True)]
        found = asyncio.run(_all(calls))
        engine.close()
        return torch.tensor([[a.log_p0, a.log_p1] for a in found])

    kernel = answers()
    monkeypatch.setattr(kv_memory, "flash_can", lambda *_: False)
    plain = answers()
    assert (kernel - plain).abs().mean() < 0.02
    assert (kernel - plain).abs().max() < 0.2
    assert kernel.std() > 0.1  # they differ among themselves


async def _all(calls):
    return await asyncio.gather(*calls)


def test_a_deterministic_engine_gives_the_same_bits_again():
    first, second = (scores_of(deterministic=True) for _ in range(2))
    assert [s.p_correct for s in first] == [s.p_correct for s in second]
    assert [s.thinking for s in first] == [s.thinking for s in second]


def test_recorded_pieces_give_the_same_bits_as_those_that_are_computed(monkeypatch):
    played = []
    record = pieces._Room.record
    monkeypatch.setattr(
        pieces._Room, "record", lambda room, memory: played.append(room) or record(room, memory)
    )
    first = scores_of(deterministic=True, cuda_graphs=True)
    assert played
    assert all(len(room.graphs) > 1 for room in played)
    monkeypatch.setattr(pieces._Room, "play", lambda room, index: room._compute(index))
    second = scores_of(deterministic=True, cuda_graphs=True)
    assert [s.thinking for s in first] == [s.thinking for s in second]
    assert [s.p_correct for s in first] == [s.p_correct for s in second]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_running_out_of_memory_loses_nothing(on_the_gpu, caplog, dtype):
    options = LocalOptions(device="cuda", dtype=dtype)
    reward = load_process_reward("demo", schedule="lockstep", local=options)
    many = [rollout_of(example) for example in EXAMPLES] * 4  # keys and values need most
    reward.score(many[:1])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    reward.score(many)
    needed = torch.cuda.max_memory_allocated() - before
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((before + needed * 0.6) / total)
    try:
        scores = reward.score(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        reward.close()
    assert "out of memory: going on" in caplog.text
    assert [score.detail for score in scores if not score.scored] == []
    if dtype == "float32":  # in bfloat16, what shares a pass changes the last digits
        first = scores[: len(EXAMPLES)]
        assert [s.judgements for s in first] == [s.judgements for s in on_the_gpu]
        assert furthest(first, on_the_gpu) < 1e-3
