"""Batches of training samples, and their losses."""

import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from vrprm_reward.demo.samples import Sample, Target
from vrprm_reward.engines.local.encode import PromptEncoder

POOL = 288
"""Samples drawn at once and sorted by length, so that little is padded."""


def batches(
    samples: Iterator[Sample], rng: random.Random, batch_tokens: int
) -> Iterator[list[Sample]]:
    """Group samples of like length into batches of at most `batch_tokens` padded tokens."""
    while True:
        # Trees need a mask that plain sequences do without, so they make batches of their own.
        pool = sorted(
            islice(samples, POOL), key=lambda sample: (bool(sample.branches), len(sample))
        )
        groups: list[list[Sample]] = [[]]
        for sample in pool:
            last = groups[-1]
            too_large = (len(last) + 1) * len(sample) > batch_tokens
            if last and (too_large or bool(last[0].branches) != bool(sample.branches)):
                groups.append([])
            groups[-1].append(sample)
        rng.shuffle(groups)
        yield from groups


def losses(model: Any, encoder: PromptEncoder, batch: list[Sample]) -> dict[str, torch.Tensor]:
    """Mean loss per target of each task in the batch.

    Rows are padded on the right, where causal attention never looks; only trees need a mask. What
    is asked of an earlier layer is read from it as if it were the last.
    """
    length = max(map(len, batch))
    pad = encoder.tokenizer.pad_token_id
    device = model.device
    ids = torch.tensor([[*s.ids, *[pad] * (length - len(s))] for s in batch], device=device)
    images = [image for sample in batch for image in sample.images]
    inputs: dict[str, Any] = {"mm_token_type_ids": (ids == encoder.image_token_id).int()}
    if images:
        pixels, grid = encoder.pixels(images)
        inputs |= {"pixel_values": pixels.to(device), "image_grid_thw": grid.to(device)}
    if batch[0].branches:
        mask, positions = tree_inputs(batch, length)
        inputs |= {"attention_mask": mask.to(device), "position_ids": positions.to(device)}
    asked: dict[str, list[tuple[int, Target]]] = defaultdict(list)
    for row, sample in enumerate(batch):
        for target in sample.targets:
            asked[target.task].append((row, target))
    early = any(target.layer is not None for targets in asked.values() for _, target in targets)
    out = model.model(input_ids=ids, use_cache=False, output_hidden_states=early, **inputs)
    found: dict[str, torch.Tensor] = {}
    for task, targets in sorted(asked.items()):
        rows, places = [row for row, _ in targets], [target.place for _, target in targets]
        (layer,) = {target.layer for _, target in targets}  # of a task, one
        if layer is None:
            read = out.last_hidden_state[rows, places]
        else:
            read = model.model.language_model.norm(out.hidden_states[layer][rows, places])
        wanted = torch.tensor([target.token for _, target in targets], device=device)
        found[task] = cross_entropy(model.lm_head(read), wanted)
    return found


def tree_inputs(batch: list[Sample], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask (rows, 1, length, length) and positions (3, rows, length) of text-only trees."""
    mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(batch), 1, 1)
    positions = torch.arange(length).repeat(len(batch), 1)
    for row, sample in enumerate(batch):
        shared = sample.branches[0]
        for start, end in zip(sample.branches, (*sample.branches[1:], len(sample)), strict=True):
            mask[row, start:end, shared:start] = False
            positions[row, start:end] -= start - shared
    return mask[:, None], positions.expand(3, -1, -1)
