"""How cost grows with steps, candidates and rollouts. `python -m benchmarks.growth`"""

import math
import statistics
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import cases, engine_on, measure, random_checkpoint
from benchmarks.judging import with_engine
from benchmarks.shapes import ShapeName, chosen
from vrprm_reward.engines.local.checkpoint import load_checkpoint
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.process_reward import DEMO_FOLDER
from vrprm_reward.scoring.render import Case


def recut(case: Case, steps: int) -> Case:
    """The same solution text cut into so many steps."""
    words = " ".join(case.steps).split()
    size = len(words) / steps
    texts = tuple(" ".join(words[round(i * size) : round((i + 1) * size)]) for i in range(steps))
    return Case(case.question, texts, case.images)


def exponent(points: list[tuple[int, float]]) -> float:
    """Slope of log cost against log size, by least squares."""
    sizes, seconds = zip(*points, strict=True)
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(cost) for cost in seconds]
    ).slope


def plot(curves: dict[str, list[tuple[int, float]]], out: Path) -> None:
    """A picture of the curves on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        sizes, seconds = zip(*points, strict=True)
        axes.loglog(sizes, seconds, marker="o", label=f"exponent {exponent(points):.2f}")
        straight = [seconds[0] * size / sizes[0] for size in sizes]
        axes.loglog(sizes, straight, linestyle=":", color="grey", label="exponent 1")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel(name)
        axes.set_ylabel("seconds")
        axes.legend(frameon=False)
    figure.savefig(out)


def main(
    repeats: int = 3,
    most_rollouts: int = 512,
    demo: Annotated[bool, typer.Option(help="Use the demo checkpoint.")] = False,
    shape: Annotated[ShapeName, typer.Option(help="small, or 4b for a GPU.")] = "small",
    layers: Annotated[int, typer.Option(help="Of a small one.")] = 4,
    width: Annotated[int, typer.Option(help="Of a small one.")] = 384,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="Where to draw the curves (.svg, .png); needs matplotlib.")
    ] = None,
) -> None:
    """Print seconds and tokens against steps (text fixed, text growing), candidates, rollouts."""
    torch.set_num_threads(threads)
    if demo:
        checkpoint = load_checkpoint(DEMO_FOLDER)
    else:
        checkpoint = random_checkpoint(chosen(shape, layers=layers, width=width))
    console = Console(width=150)

    def cost(asked: list[Case]) -> tuple[float, int]:
        pushed = []

        def run(engine: LocalEngine) -> None:
            with_engine(engine, asked, "lockstep")
            pushed.append(engine.stats.tokens)
            engine.close()

        return measure(run, repeats, lambda: engine_on(checkpoint)).seconds, pushed[-1]

    cost(cases(1, 2, 2))  # the first run of a process is slower
    long = cases(2, 2, 64, words_per_step=6)
    steps = (4, 8, 16, 32) if demo else (4, 8, 16, 32, 64)  # 64 are beyond the demo's context
    curves = {
        "steps, the same 384 words": [(n, [recut(case, n) for case in long]) for n in steps[1:]],
        "steps of 12 words": [(n, cases(2, 2, n, words_per_step=12)) for n in steps],
        "candidates of one problem": [(n, cases(1, n, 6)) for n in (1, 4, 16, 64)],
        "rollouts": [(n, cases(n // 4, 4, 6)) for n in (32, 128, most_rollouts)],
    }
    drawn = {}
    for name, points in curves.items():
        table = Table(name, "seconds", "per unit, ms", "tokens", "tokens per unit")
        found = []
        for size, asked in points:
            seconds, tokens = cost(asked)
            found.append((size, seconds))
            table.add_row(
                str(size), f"{seconds:.2f}", f"{seconds / size * 1e3:.1f}", str(tokens),
                f"{tokens / size:.0f}",
            )  # fmt: skip
        console.print(table)
        console.print(f"exponent {exponent(found):.2f}")
        drawn[name] = found
    if picture is not None:
        plot(drawn, picture)


if __name__ == "__main__":
    typer.run(main)
