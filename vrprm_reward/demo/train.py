"""Train the demo checkpoint from nothing: `python -m vrprm_reward.demo.train --out FOLDER`.

One skill after another: naming what is seen, taking notes of it, checking steps against facts, and
then all of it in the frames of the packaged profiles. Judgements of one rollout share a sequence.
"""

import copy
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch.nn.functional import cross_entropy
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vrprm_reward.demo.look import look_losses
from vrprm_reward.demo.model import IMAGE_SIDE, build_model
from vrprm_reward.demo.samples import Sample, random_samples, tokenizer_texts
from vrprm_reward.demo.tokenizer import train_tokenizer
from vrprm_reward.engines.local.checkpoint import load_checkpoint
from vrprm_reward.engines.local.device import pick_device
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.scoring.profile import Profile, load_profile

PROFILES = {
    "demo": 0.3,
    "multi_turn": 0.1,
    "answer_block": 0.22,
    "score_json": 0.2,
    "boxed_continuation": 0.18,
}
"""Packaged profiles the checkpoint is trained to follow, with their share of the samples."""

VOCABULARY = 1024
SAVE_EVERY = 250
"""Updates between two copies of the checkpoint, to look at while training goes on."""

POOL = 288
"""Samples drawn at once and sorted by length, so that little is padded."""


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    updates: int
    batches: int
    """Batches in an update. A batch holds samples of like length, which are mostly of one kind; an
    update by one kind alone undoes what the others have taught."""

    batch_tokens: int
    shares: dict[str, float]
    """Shares of the kinds of samples; none for looking, which has no text."""


STAGES = (
    Stage("look", 80, 1, 0, {}),
    Stage("see", 130, 1, 2048, {"see": 1.0}),
    Stage("claims", 250, 3, 1536, {"claims": 0.7, "see": 0.3}),
    Stage("skills", 550, 3, 1536, {"see": 0.25, "claims": 0.15, "drill": 0.35, "quiz": 0.25}),
    Stage("all", 300, 2, 2304, {"picture_quiz": 0.1, "drill": 0.15, "think": 0.6, "judge": 0.15}),
    Stage(
        "polish",
        1300,
        3,
        1792,
        {
            "see": 0.3,
            "picture_quiz": 0.04,
            "drill": 0.06,
            "think": 0.26,
            "judge": 0.08,
            "verdicts": 0.26,
        },
    ),
)

PICTURES = 48
"""Pictures in an update of the stage that has no text."""


def make_optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else.

    AdamW alone did not learn to look words up within hours; Muon (Jordan et al. 2024, "Muon: an
    optimizer for hidden layers") does within minutes.
    """
    layers = ("language_model.layers", "visual.blocks", "visual.merger", "visual.deepstack")
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and any(part in name for part in layers)
        (matrices if inside else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01)
    adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    for group in (*muon.param_groups, *adam.param_groups):
        group["initial_lr"] = group["lr"]
    return [muon, adam]


MATRIX_RATE, OTHER_RATE = 0.012, 2e-3


def learning_rate(update: int, total: int) -> float:
    """Share of the highest rate: up over 50 updates, then down to 1% in a straight line."""
    return min((update + 1) / 50, 1 - 0.99 * update / total)


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

    Rows are padded on the right, where causal attention never looks; only trees need a mask.
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
    hidden = model.model(input_ids=ids, use_cache=False, **inputs).last_hidden_state
    targets = [(row, target) for row, sample in enumerate(batch) for target in sample.targets]
    places = [target.place for _, target in targets]
    logits = model.lm_head(hidden[[row for row, _ in targets], places])
    wanted = torch.tensor([target.token for _, target in targets], device=device)
    each = cross_entropy(logits, wanted, reduction="none")
    tasks = [target.task for _, target in targets]
    return {
        task: each[[i for i, name in enumerate(tasks) if name == task]].mean()
        for task in sorted(set(tasks))
    }


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


def train(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    fast: Annotated[
        bool, typer.Option(help="Compiled layers in bfloat16; needs a C++ compiler.")
    ] = False,
    scale: Annotated[float, typer.Option(help="Multiplies the number of updates.")] = 1.0,
    start: Annotated[
        Path | None, typer.Option(help="A folder to go on from, instead of from nothing.")
    ] = None,
    first_stage: Annotated[str, typer.Option(help="Where to begin.")] = STAGES[0].name,
    rate: Annotated[float, typer.Option(help="Multiplies the learning rates.")] = 1.0,
    noisy: Annotated[
        float, typer.Option(help="Share of examples with text around steps that claims nothing.")
    ] = 0.0,
) -> None:
    """Train the demo checkpoint and write it as a transformers folder in float16."""
    console = Console()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    profiles = {name: (demo_profile(name), weight) for name, weight in PROFILES.items()}
    shown = [profile for profile, _ in profiles.values()]
    if start is None:
        texts = tokenizer_texts(random.Random(seed), shown, 3000)
        tokenizer = train_tokenizer(texts, VOCABULARY)
        model = build_model(tokenizer)
    else:
        checkpoint = load_checkpoint(start)
        tokenizer, model = checkpoint.tokenizer, checkpoint.model.float()
        model.requires_grad_(True)
    model.train().to(pick_device(device))
    encoder = make_encoder(tokenizer, demo_profile("demo"), model)
    optimizers = make_optimizers(model)
    if fast:
        for layer in model.model.language_model.layers:
            layer.compile(dynamic=True)
    chosen = STAGES[[stage.name for stage in STAGES].index(first_stage) :]
    stages = [(stage, max(1, round(stage.updates * scale))) for stage in chosen]
    total, update, began = sum(n for _, n in stages), 0, time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "training.jsonl").open("w", encoding="utf-8") as log:
        for stage, updates in stages:
            rng = random.Random(f"{seed} {stage.name}")
            if stage.shares:
                samples = random_samples(rng, profiles, encoder, stage.shares, noisy)
                drawn = batches(samples, rng, stage.batch_tokens)
                asked: Iterator[dict[str, torch.Tensor]] = (
                    losses(model, encoder, batch) for batch in drawn
                )
            else:
                asked = look_losses(model, encoder, demo_profile("demo"), rng, PICTURES)
            for _ in range(updates):
                factor = rate * learning_rate(update, total)
                for group in (g for o in optimizers for g in o.param_groups):
                    group["lr"] = factor * group["initial_lr"]
                found: dict[str, torch.Tensor] = {}
                for _ in range(stage.batches):
                    with torch.autocast(model.device.type, torch.bfloat16, enabled=fast):
                        losses_now = next(asked)
                    torch.stack([*losses_now.values()]).sum().backward()  # type: ignore[no-untyped-call]
                    found |= losses_now
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
                update += 1
                if update % 25 == 0:
                    row: dict[str, float | str] = {
                        task: round(loss.item(), 5) for task, loss in found.items()
                    }
                    row |= {"update": update, "seconds": round(time.monotonic() - began)}
                    log.write(json.dumps(row | {"stage": stage.name}) + "\n")
                    log.flush()
                    console.print(f"{update}/{total} {stage.name} {row}", soft_wrap=True)
                if update % SAVE_EVERY == 0:
                    save(model, encoder, out)
    save(model, encoder, out)
    console.print(f"written to {out}")


def demo_profile(name: str) -> Profile:
    """A packaged profile at the resolution of the demo world."""
    return load_profile(name).model_copy(update={"pixels": load_profile("demo").pixels})


def make_encoder(tokenizer: Any, profile: Profile, model: Any) -> PromptEncoder:
    """The encoder of the demo checkpoint."""
    size = IMAGE_SIDE * IMAGE_SIDE
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": size, "longest_edge": size},
        patch_size=16,
        merge_size=2,
        image_mean=[0.94] * 3,
        image_std=[0.25] * 3,
    )
    return PromptEncoder(
        tokenizer,
        image_processor,
        template=profile.conversation,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        rope_index=model.model.get_rope_index,
    )


def save(model: Any, encoder: PromptEncoder, out: Path) -> None:
    """Write model (float16), tokenizer, chat template and image settings."""
    encoder.tokenizer.chat_template = encoder.template
    encoder.tokenizer.save_pretrained(out)
    encoder.image_processor.save_pretrained(out)
    copy.deepcopy(model).cpu().eval().half().save_pretrained(out)


if __name__ == "__main__":
    typer.run(train)
