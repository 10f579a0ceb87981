"""Train the demo checkpoint from nothing: `python -m vrprm_reward.demo.train --out FOLDER`.

One skill after another (see `recipe`): naming what is seen, taking notes of it, checking steps
against facts, and then all of it in the frames of the packaged profiles. With `--no-thinking` a
checkpoint that can see (`--start`) learns to judge at once, in the frames that do without thinking.
"""

import copy
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vrprm_reward.demo.attention import attend_in_float32
from vrprm_reward.demo.look import look_losses
from vrprm_reward.demo.losses import batches, losses
from vrprm_reward.demo.model import IMAGE_SIDE, build_model
from vrprm_reward.demo.optimizers import learning_rate, make_optimizers
from vrprm_reward.demo.parallel import average_gradients, in_processes
from vrprm_reward.demo.reading import random_readings
from vrprm_reward.demo.recipe import (
    PICTURES,
    PROFILES,
    READING,
    READING_CONTEXT,
    READING_PROFILES,
    STAGES,
    VOCABULARY,
    Stage,
    demo_profile,
)
from vrprm_reward.demo.samples import random_samples, tokenizer_texts
from vrprm_reward.demo.tokenizer import train_tokenizer
from vrprm_reward.engines.local.checkpoint import load_checkpoint
from vrprm_reward.engines.local.device import pick_device
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.scoring.profile import Profile

SAVE_EVERY = 250
"""Updates between two copies of the checkpoint, to look at while training goes on."""

LOG_EVERY = 25


@dataclass(frozen=True)
class Settings:
    """A training run."""

    out: Path
    seed: int = 0
    device: str = "auto"
    threads: int = 1
    fast: bool = False
    scale: float = 1.0
    start: Path | None = None
    first_stage: str | None = None
    rate: float = 1.0
    thinking: bool = True

    @property
    def stages(self) -> list[tuple[Stage, int]]:
        """The stages to go through, with their updates.

        Raises:
            ValueError: there is no first stage of this name.
        """
        stages = STAGES if self.thinking else READING
        names = [stage.name for stage in stages]
        first = self.first_stage or names[0]
        if first not in names:
            raise ValueError(f"there is no stage {first!r}: name one of {', '.join(names)}")
        chosen = stages[names.index(first) :]
        return [(stage, max(1, round(stage.updates * self.scale))) for stage in chosen]


def main(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    processes: Annotated[
        int, typer.Option(help="Each takes batches of its own; of one thread each.")
    ] = 2,
    fast: Annotated[
        bool, typer.Option(help="Compiled layers in bfloat16; needs a C++ compiler.")
    ] = False,
    scale: Annotated[float, typer.Option(help="Multiplies the number of updates.")] = 1.0,
    start: Annotated[
        Path | None, typer.Option(help="A folder to go on from, instead of from nothing.")
    ] = None,
    first_stage: Annotated[
        str | None, typer.Option(help="Where to begin, if not with the first one.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Multiplies the learning rates.")] = 1.0,
    thinking: Annotated[
        bool, typer.Option(help="Whether it thinks before it judges; if not, it needs a --start.")
    ] = True,
) -> None:
    """Train the demo checkpoint and write it as a transformers folder in float16."""
    settings = Settings(
        out=out, seed=seed, device=device, fast=fast, scale=scale, start=start,
        first_stage=first_stage, rate=rate, thinking=thinking,
    )  # fmt: skip
    if not (thinking or start):
        raise typer.BadParameter(
            "name a checkpoint that can see with --start", param_hint="--no-thinking"
        )
    try:
        _ = settings.stages
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--first-stage") from error
    in_processes(processes, partial(train, settings, processes))


def train(settings: Settings, processes: int, rank: int) -> None:
    """Train in one of so many processes; the first one writes."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model, encoder = _beginning(settings)
    optimizers = make_optimizers(model)
    if settings.fast:
        if model.device.type == "cpu":
            attend_in_float32(model)
        for layer in model.model.language_model.layers:
            layer.compile(dynamic=True)
    total = sum(updates for _, updates in settings.stages)
    record = Record(settings.out, total) if rank == 0 else None
    update = 0
    for stage, updates in settings.stages:
        rng = random.Random(f"{settings.seed} {stage.name} {rank}")
        asked = _asked(settings, stage, model, encoder, rng)
        model.model.visual.requires_grad_(stage.vision)
        for _ in range(updates):
            factor = settings.rate * learning_rate(update, total)
            for group in (g for o in optimizers for g in o.param_groups):
                group["lr"] = factor * group["initial_lr"]
            found: dict[str, torch.Tensor] = {}
            for _ in range(max(1, stage.batches // processes)):
                with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.fast):
                    losses_now = next(asked)
                torch.stack([*losses_now.values()]).sum().backward()  # type: ignore[no-untyped-call]
                found |= losses_now
            average_gradients(model.parameters())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            update += 1
            if record is not None:
                record.note(update, stage, found)
                if update % SAVE_EVERY == 0:
                    save(model, encoder, settings.out)
    if record is not None:
        save(model, encoder, settings.out)


def _beginning(settings: Settings) -> tuple[Any, PromptEncoder]:
    """The model to train, and its encoder."""
    if settings.start is None:
        shown = [demo_profile(name) for name in PROFILES]
        tokenizer = train_tokenizer(
            tokenizer_texts(random.Random(settings.seed), shown, 3000), VOCABULARY
        )
        model = build_model(tokenizer)
    else:
        checkpoint = load_checkpoint(settings.start)
        tokenizer, model = checkpoint.tokenizer, checkpoint.model.float()
        model.requires_grad_(True)
        if not settings.thinking:
            model.config.text_config.max_position_embeddings = READING_CONTEXT
            tokenizer.model_max_length = READING_CONTEXT
    model.train().to(pick_device(settings.device))
    return model, make_encoder(tokenizer, demo_profile("demo"), model)


def _asked(
    settings: Settings, stage: Stage, model: Any, encoder: PromptEncoder, rng: random.Random
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless losses of a stage's batches."""
    if not stage.shares:
        return look_losses(model, encoder, demo_profile("demo"), rng, PICTURES)
    if settings.thinking:
        profiles = {name: (demo_profile(name), weight) for name, weight in PROFILES.items()}
        samples = random_samples(rng, profiles, encoder, stage.shares, stage.noisy)
    else:
        profiles = {name: (demo_profile(name), weight) for name, weight in READING_PROFILES.items()}
        samples = random_readings(rng, profiles, encoder, stage.shares)
    drawn = batches(samples, rng, stage.batch_tokens)
    return (losses(model, encoder, batch) for batch in drawn)


class Record:
    """Losses on the console and in `training.jsonl`."""

    def __init__(self, out: Path, total: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path, self._total = out / "training.jsonl", total
        self._path.write_text("", encoding="utf-8")
        self._console, self._began = Console(), time.monotonic()

    def note(self, update: int, stage: Stage, found: dict[str, torch.Tensor]) -> None:
        """Write the losses of an update, now and then."""
        if update % LOG_EVERY:
            return
        row: dict[str, float | str] = {
            task: round(loss.item(), 5) for task, loss in sorted(found.items())
        }
        row |= {"update": update, "seconds": round(time.monotonic() - self._began)}
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row | {"stage": stage.name}) + "\n")
        self._console.print(f"{update}/{self._total} {stage.name} {row}", soft_wrap=True)


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
    written = copy.deepcopy(model).cpu().eval().half()
    for part in (written.config.text_config, written.config.vision_config):
        part.dtype = written.dtype  # where it was loaded as float32, it would stay
    written.save_pretrained(out)


if __name__ == "__main__":
    typer.run(main)
