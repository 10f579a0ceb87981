"""Whole scoring (thinking, then judging) and thinking alone. `python -m benchmarks.scoring`"""

import asyncio
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    PROFILE,
    Plain,
    cases,
    engine_on,
    language_parameters,
    measure,
    plain_client,
    random_checkpoint,
    twin,
    where,
)
from benchmarks.judging import Scores, batched, naive, with_engine
from benchmarks.shapes import ShapeName, chosen
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.scoring.frames import think_prompt
from vrprm_reward.scoring.render import Case


def think_naively(client: Plain, asked: list[Case], max_tokens: int) -> list[str]:
    """One thinking request after another."""
    return [client.generate([think_prompt(PROFILE, case)], max_tokens)[0] for case in asked]


def think_in_batches(client: Plain, asked: list[Case], max_tokens: int) -> list[str]:
    """Thinking requests in padded batches of eight, sorted by length."""
    prompts = [think_prompt(PROFILE, case) for case in asked]
    order = sorted(range(len(asked)), key=lambda i: len(client.encoder.encode(prompts[i])))
    found = [""] * len(asked)
    for start in range(0, len(order), 8):
        rows = order[start : start + 8]
        texts = client.generate([prompts[row] for row in rows], max_tokens)
        for row, text in zip(rows, texts, strict=True):
            found[row] = text
    return found


def think_with_engine(engine: LocalEngine, asked: list[Case], max_tokens: int) -> list[str]:
    """All thinking requests at once."""

    async def run() -> list[str]:
        calls = [
            engine.generate(
                think_prompt(PROFILE, case), max_tokens=max_tokens, stop=None, share=index
            )
            for index, case in enumerate(asked)
        ]
        return [generation.text for generation in await asyncio.gather(*calls)]

    return asyncio.run(run())


def main(
    problems: int = 4,
    candidates: int = 4,
    steps: int = 8,
    thinking: int = 200,
    repeats: int = 3,
    shape: Annotated[ShapeName, typer.Option(help="small, or 4b for a GPU.")] = "small",
    layers: Annotated[int, typer.Option(help="Of a small one.")] = 13,
    width: Annotated[int, typer.Option(help="Of a small one.")] = 640,
    image_px: int = 384,
    prefill_px: Annotated[
        int,
        typer.Option(help="Side of the images of a second thinking prefill."),
    ] = 768,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print seconds and ratios of whole scoring, of thinking prefill, and of image encoding."""
    torch.set_num_threads(threads)
    checkpoint = random_checkpoint(chosen(shape, layers=layers, width=width))
    client = plain_client(twin(checkpoint))
    # Random weights never write an end token that matters here; it is taken out of the way.
    client.checkpoint.model.generation_config.eos_token_id = None
    asked = cases(problems, candidates, steps, image_px=image_px)
    console = Console(width=150)
    console.print(
        f"{language_parameters(checkpoint) / 1e6:.0f} M language parameters, "
        f"{problems} images of {image_px} px, {len(asked)} rollouts x {steps} steps, "
        f"{thinking} tokens of thinking, {where()}, median of {repeats}"
    )

    def endless() -> LocalEngine:
        engine = engine_on(checkpoint)
        engine._scheduler._ends = frozenset()
        return engine

    def run_engine(engine: LocalEngine) -> Scores:
        think_with_engine(engine, asked, thinking)
        found = with_engine(engine, asked, "lockstep")[0]
        in_model.append(engine.stats.seconds_in_model)
        engine.close()
        return found

    in_model: list[float] = []
    a = measure(lambda: (think_naively(client, asked, thinking), naive(client, asked)), repeats)
    b = measure(
        lambda: (think_in_batches(client, asked, thinking), batched(client, asked)), repeats
    )
    own = measure(run_engine, repeats, endless)
    table = Table("whole scoring", "seconds", "spread", "x (a)")
    for name, measured in (("(a) naive", a), ("(b) batched", b), ("this engine", own)):
        table.add_row(
            name, f"{measured.seconds:.2f}", f"{measured.spread:.0%}",
            f"{a.seconds / measured.seconds:.2f}",
        )  # fmt: skip
    console.print(table)
    outside = 1 - in_model[-1] / own.seconds
    console.print(
        f"time outside the language model, images included: {outside:.1%} of {own.seconds:.1f} s"
    )
    for side in dict.fromkeys((image_px, prefill_px)):
        console.print(
            _prefill(client, endless, cases(problems, candidates, steps, image_px=side), repeats)
        )


def _prefill(
    client: Plain, engine: Callable[[], LocalEngine], asked: list[Case], repeats: int
) -> Table:
    """Thinking of one token: encoding images, and the prompts."""
    encoded: list[int] = []

    def naively() -> None:
        client.images = 0
        think_naively(client, asked, 1)
        encoded.append(client.images)

    def own(engine: LocalEngine) -> None:
        think_with_engine(engine, asked, 1)
        encoded.append(engine.images_encoded)
        engine.close()

    a = measure(naively, repeats)
    table = Table(
        f"thinking prefill, {asked[0].images[0].image.width} px",
        "seconds",
        "spread",
        "encoded",
        "x (a)",
    )
    table.add_row("(a) naive", f"{a.seconds:.2f}", f"{a.spread:.0%}", str(encoded[-1]), "1.00")
    b = measure(own, repeats, engine)
    table.add_row(
        "this engine",
        f"{b.seconds:.2f}",
        f"{b.spread:.0%}",
        str(encoded[-1]),
        f"{a.seconds / b.seconds:.2f}",
    )
    return table


if __name__ == "__main__":
    typer.run(main)
