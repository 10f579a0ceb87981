"""Many rollouts at once, without any other client: `python -m benchmarks.throughput`.

For a GPU: `python -m benchmarks.throughput --shape 4b`.
"""

import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import (
    PeakMemory,
    cases,
    engine_on,
    language_parameters,
    random_checkpoint,
    where,
)
from benchmarks.judging import with_engine
from benchmarks.scoring import think_with_engine
from benchmarks.shapes import ShapeName, chosen
from vrprm_reward.engines.local.engine import LocalEngine


def main(
    problems: int = 16,
    candidates: int = 8,
    steps: int = 8,
    thinking: int = 128,
    image_px: int = 384,
    shape: Annotated[ShapeName, typer.Option(help="small, or 4b for a GPU.")] = "small",
    layers: Annotated[int, typer.Option(help="Of a small one.")] = 4,
    width: Annotated[int, typer.Option(help="Of a small one.")] = 384,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print rollouts and tokens a second of thinking and of judging, after one warm-up."""
    torch.set_num_threads(threads)
    checkpoint = random_checkpoint(chosen(shape, layers=layers, width=width))
    asked = cases(problems, candidates, steps, image_px=image_px)
    console = Console(width=150)
    console.print(
        f"{language_parameters(checkpoint) / 1e6:.0f} M language parameters, {len(asked)} rollouts "
        f"x {steps} steps, an image of {image_px} px each, {thinking} tokens of thinking, {where()}"
    )

    def fresh() -> LocalEngine:
        engine = engine_on(checkpoint)
        engine._scheduler._ends = frozenset()  # random weights must not end where they like
        return engine

    jobs = {
        "thinking": lambda engine: think_with_engine(engine, asked, thinking),
        "judging, lockstep": lambda engine: with_engine(engine, asked, "lockstep"),
        "judging, fixed point": lambda engine: with_engine(engine, asked, "fixed_point"),
    }
    warm = fresh()
    with_engine(warm, asked[:8], "lockstep")
    warm.close()
    table = Table(
        "", "seconds", "rollouts/s", "tokens/s", "passes", "outside the model", "ms a pass",
        "us a token", "extra MiB",
    )  # fmt: skip
    for name, job in jobs.items():
        engine = fresh()
        began = time.monotonic()
        with PeakMemory() as memory:
            job(engine)
        seconds = time.monotonic() - began
        stats, cost = engine.stats, engine._scheduler.cost
        engine.close()
        del engine  # and its keys and values, before the next one looks at free memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        table.add_row(
            name, f"{seconds:.2f}", f"{len(asked) / seconds:.1f}", f"{stats.tokens / seconds:.0f}",
            str(stats.passes), f"{1 - stats.seconds_in_model / seconds:.0%}",
            f"{cost.per_pass * 1e3:.1f}", f"{cost.per_token * 1e6:.1f}", f"{memory.mib:.0f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
