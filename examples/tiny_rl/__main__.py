"""`python -m examples.tiny_rl`: the comparison, the sweep, the gaming runs, and single runs."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from .arms import ARMS, COMPARED, SWEPT
from .gaming import GAMED, gaming_rows, gaming_table
from .grid import RunFailedError, carry_out, grid
from .plots import draw_curves
from .run import RunSettings
from .run import run as carry_out_run
from .starts import STARTS, figures_of, make_start
from .summary import (
    as_markdown,
    as_table,
    best_rates,
    curve_rows,
    curves,
    ends,
    means,
    reached,
    seed_rows,
    table_rows,
)
from .toy import RULES, Toy, compared

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()
console.width = max(console.width, 150)  # narrower, the headings of the tables would be cut

RATES = Path(__file__).parent / "rates.json"
"""The rate of each arm in the comparison, chosen by what `sweep.json` has of the sweep: sampled
final answers at the end of each seed, by start, arm and rate."""

GRID = (1e-4, 2e-4, 5e-4)
"""The rates that every arm is tried at. At 1e-3 each of the five arms that were tried fails."""

Root = Annotated[Path, typer.Option(help="Folder of everything that is made.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time, each on one core.")]
Plot = Annotated[Path | None, typer.Option(help="Also draw the curves into this PNG.")]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds of each arm.")]
DEFAULT_ROOT = Path("runs/tiny_rl")
STARTS_FOLDER = "starts"
DEFAULT_STARTS = DEFAULT_ROOT / STARTS_FOLDER

FIRST_TUNING_SEED = 100
TUNING = {"tuning": True, "evaluate_every": 20}
"""What is otherwise in the sweep."""

QUICK = {"updates": 12, "held_out": 128, "evaluate_every": 6}
"""What `--quick` makes smaller; it also has one seed."""


@app.command()
def compare(
    root: Root = DEFAULT_ROOT,
    jobs: Jobs = 2,
    seeds: Seeds = 3,
    start: Annotated[str, typer.Option(help="Where the arms start from.")] = "hard",
    arm: Annotated[list[str] | None, typer.Option(help="Arms; six of them if none.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="One rate for all arms; those of the sweep if none.")
    ] = None,
    every: Annotated[int, typer.Option(help="Updates between two evaluations.")] = 10,
    alone: Annotated[
        bool,
        typer.Option(help="No run uses scores of another: seconds are those that a run takes."),
    ] = False,
    quick: Annotated[bool, typer.Option(help="One seed, few updates: a few minutes.")] = False,
    plot: Plot = None,
) -> None:
    """Arms at their rates on held-out problems. Started again, it goes on where it was."""
    (start,) = _known([start], STARTS)
    arms = _known(arm or list(COMPARED), ARMS)
    more = QUICK if quick else {"evaluate_every": every}
    rates = _rates(start, arms) if rate is None else dict.fromkeys(arms, (rate,))
    wanted = grid(start, arms, rates, range(1 if quick else seeds), **more)
    _make_starts([start], root)
    place = root / "quick" if quick else root / "alone" if alone else root
    _carry_out_and_show(place, root / STARTS_FOLDER, wanted, jobs, plot, alone=alone)


@app.command()
def sweep(
    root: Root = DEFAULT_ROOT,
    jobs: Jobs = 2,
    seeds: Seeds = 3,
    start: Annotated[list[str] | None, typer.Option(help="Starts; both if none.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Arms; all of the sweep if none.")] = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="Rates; all of the grid if none.")
    ] = None,
    updates: Annotated[int, typer.Option(help="Updates of a run.")] = 60,
) -> None:
    """All arms at all rates from both starts; prints the best rate of each arm.

    Held-out problems and seeds are others than those of `compare`, so that no rate is chosen on
    what is reported with it. The problems of the training are the same, in other orders.
    """
    arms = _known(arm or list(SWEPT), ARMS)
    names = _known(start or ["hard", "easy"], STARTS)
    place = root / "sweep"
    _make_starts(names, root)
    for name in names:
        rates = {one: tuple(rate or GRID) for one in arms}
        several = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + seeds)
        wanted = grid(name, arms, rates, several, updates=updates, **TUNING)
        _carry_out_and_show(place, root / STARTS_FOLDER, wanted, jobs, None)
        found = curves(place, wanted)
        console.print_json(data={name: best_rates(ends(found, "sampled/final"))})


@app.command()
def game(
    root: Root = DEFAULT_ROOT,
    jobs: Jobs = 2,
    seeds: Seeds = 1,
    start: Annotated[str, typer.Option(help="`gaming`, or `gaming_hard`.")] = "gaming",
    arm: Annotated[
        list[str] | None, typer.Option(help="Arms; all that may be gamed if none.")
    ] = None,
    rate: Annotated[float, typer.Option(help="The rate of all arms.")] = 2e-4,
    updates: Annotated[int, typer.Option(help="Updates of a run.")] = 60,
    plot: Plot = None,
) -> None:
    """Arms from a start that pads, repeats, skips and flatters: reward gained, truth lost."""
    _make_starts(_known([start], STARTS), root)
    arms = _known(arm or list(GAMED), ARMS)
    wanted = grid(start, arms, dict.fromkeys(arms, (rate,)), range(seeds), updates=updates)
    _carry_out(root, root / STARTS_FOLDER, wanted, jobs)
    rows = gaming_rows(root, wanted)
    console.print(gaming_table(rows))
    written = as_markdown([list(row.values()) for row in rows], list(rows[0]))
    (root / f"{start}.md").write_text(written)
    if plot is not None:
        draw_curves(curves(root, wanted), plot, wanted[0].problems * wanted[0].group, start)


@app.command(name="run")
def run_one(
    settings: Annotated[Path, typer.Argument(help="A run's settings as JSON.")],
    starts: Annotated[Path, typer.Option(help="Folder of the starts.")] = DEFAULT_STARTS,
    scores: Annotated[Path, typer.Option(help="Folder of kept scores.")] = DEFAULT_ROOT / "scores0",
) -> None:
    """One run, beside its settings file."""
    chosen = RunSettings.model_validate_json(settings.read_text())
    start = make_start(chosen.start, starts, _tell)
    carry_out_run(
        chosen,
        start,
        settings.parent,
        scores,
        lambda update: console.print(f"update {update} of {chosen.updates}"),
    )


@app.command()
def toy(
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of each rule.")] = 8,
    errors: Annotated[
        float, typer.Option(min=0, max=1, help="Share of steps that are judged wrongly.")
    ] = 0.02,
    sure: Annotated[float, typer.Option(help="The judge's log-odds, in the mean.")] = 3.5,
    habits: Annotated[bool, typer.Option(help="Whether the policy pads and leaves out.")] = True,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
) -> None:
    """Rules on a policy that is a table of numbers: what is learnt, what is gamed, in minutes."""
    torch.set_num_threads(1)
    doing = (0.2, 0.15) if habits else (0.0, 0.0)
    rows = compared(Toy(errors=errors, sure=(sure, 0.7), rate=rate, habits=doing), RULES, seeds)
    console.print(as_markdown([list(row.values()) for row in rows], list(rows[0])), soft_wrap=True)


@app.command(name="starts")
def pretrain_starts(
    name: Annotated[list[str] | None, typer.Argument(help="Starts; all if none.")] = None,
    root: Root = DEFAULT_ROOT,
    anew: Annotated[bool, typer.Option(help="Also train the one that is packaged.")] = False,
) -> None:
    """Pre-train the policies to start from, and print what they are worth."""
    _make_starts(_known(name or list(STARTS), STARTS), root, anew=anew)


def _make_starts(names: list[str], root: Path, *, anew: bool = False) -> None:
    for name in names:
        found = figures_of(make_start(name, root / STARTS_FOLDER, _tell, anew=anew))
        shown = {
            key: round(found[key], 3)
            for key in ("sampled/final", "sampled/steps", "greedy/final", "greedy/steps")
        }
        console.print(f"Start {name}: {shown}")


def _tell(stage: str, update: int, losses: dict[str, float]) -> None:
    if update % 20 == 0:
        console.print(f"{stage} {update}: {losses}", soft_wrap=True)


def _rates(start: str, arms: list[str]) -> dict[str, tuple[float]]:
    known = json.loads(RATES.read_text()).get(start, {})
    for arm in arms:
        if arm not in known:
            raise typer.BadParameter(
                f"no rate is known for {arm!r} from the start {start!r}: find it with `sweep "
                f"--start {start} --arm {arm}` and put it into {RATES.name}"
            )
    return {arm: (known[arm],) for arm in arms}


def _known(names: list[str], known: object) -> list[str]:
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return names


def _carry_out(
    place: Path, starts: Path, wanted: list[RunSettings], jobs: int, *, alone: bool = False
) -> None:
    try:
        carry_out(place, starts, wanted, jobs, console, alone=alone)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except RunFailedError as error:
        console.print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(1) from error


def _carry_out_and_show(
    place: Path,
    starts: Path,
    wanted: list[RunSettings],
    jobs: int,
    plot: Path | None,
    *,
    alone: bool = False,
) -> None:
    _carry_out(place, starts, wanted, jobs, alone=alone)
    found = curves(place, wanted)
    rows = table_rows(found)
    console.print(as_table(rows, f"{wanted[0].start} start, held out, at the end"))
    per_update = wanted[0].problems * wanted[0].group
    headings, by_rollouts = curve_rows(found, "sampled/final", per_update)
    by_seed = seed_rows(found, "sampled/final")
    (place / f"{wanted[0].start}.md").write_text(
        f"At the end:\n\n{as_markdown(rows)}\n"
        f"Final, sampled, after so many rollouts:\n\n{as_markdown(by_rollouts, headings)}\n"
        f"The same at the end, by seed:\n\n{as_markdown(by_seed, ('arm', 'rate', 'seeds'))}"
    )
    if any(arm == "outcome" for arm, _ in found):
        level, first = reached(found, "sampled/final", "outcome")
        console.print(f"{level:.3f} of sampled answers, the best mean of outcome, after:")
        for (arm, rate), update in first.items():
            if update is None:
                console.print(f"  {arm} at {rate:g}: never")
                continue
            seconds = means(found[arm, rate], "seconds").get(update, 0.0)
            console.print(f"  {arm} at {rate:g}: {update * per_update} rollouts, {seconds:.0f} s")
    if plot is not None:
        draw_curves(found, plot, per_update, wanted[0].start)


if __name__ == "__main__":
    app()
