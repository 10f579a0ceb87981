"""What a grid of runs shows: a table of arms with means and spreads over seeds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from .grid import folder_of
from .logs import read_log
from .run import RunSettings, is_finished

SHOWN = {
    "sampled/final": "final, sampled",
    "greedy/final": "final, greedy",
    "sampled/steps": "steps right",
    "sampled/solved": "needed steps",
    "sampled/sound": "all steps right",
    "sampled/right_on_wrong_step": "right answers on a wrong step",
    "sampled/right_unfounded": "right answers on a wrong or missing step",
    "sampled/number_of_steps": "steps",
    "sampled/tokens": "tokens",
}
"""The figures of the table, by their names in the logs."""

Curve = list[dict[str, Any]]
"""The log of one run, in order."""


def held_out(curve: Curve) -> Curve:
    """The rows of the evaluations."""
    return [row for row in curve if row["kind"] == "held_out"]


def trained(curve: Curve) -> Curve:
    """The rows of the updates."""
    return [row for row in curve if row["kind"] == "train"]


def curves(root: Path, wanted: Sequence[RunSettings]) -> dict[tuple[str, float], list[Curve]]:
    """Logs of the finished runs, by arm and rate; one curve for each seed."""
    found: dict[tuple[str, float], list[Curve]] = defaultdict(list)
    for settings in wanted:
        folder = folder_of(root, settings)
        if is_finished(settings, folder):
            found[settings.arm, settings.rate].append(read_log(folder))
    return dict(found)


def last(runs: Sequence[Curve], figure: str) -> list[float]:
    """A figure at the end of each run that has it: no right answer, no share of them."""
    ends = [held_out(curve)[-1] for curve in runs]
    return [row[figure] for row in ends if figure in row]


def means(runs: Sequence[Curve], figure: str) -> dict[int, float]:
    """A figure's mean over seeds, by the number of updates."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in (row for curve in runs for row in held_out(curve)):
        if figure in row:
            found[row["update"]].append(row[figure])
    return {update: fmean(values) for update, values in sorted(found.items())}


def reached(
    found: Mapping[tuple[str, float], Sequence[Curve]], figure: str, baseline: str
) -> tuple[float, dict[tuple[str, float], int | None]]:
    """The best that an arm comes to in its mean over seeds, and when the arms are there.

    Returns:
        The level, and for each arm and rate the first evaluated update at which the mean over seeds
        is that high; None where it never is.
    """
    level = max(
        value
        for (arm, _), runs in found.items()
        if arm == baseline
        for value in means(runs, figure).values()
    )
    first = {
        (arm, rate): next(
            (update for update, mean in means(runs, figure).items() if mean >= level), None
        )
        for (arm, rate), runs in found.items()
    }
    return level, first


def ends(
    found: Mapping[tuple[str, float], Sequence[Curve]], figure: str
) -> dict[tuple[str, float], list[float]]:
    """A figure at the end of each run, by arm and rate."""
    return {arm_and_rate: last(runs, figure) for arm_and_rate, runs in found.items()}


def best_rates(found: Mapping[tuple[str, float], Sequence[float]]) -> dict[str, float]:
    """For each arm the rate that serves best whichever seed comes.

    That is the one with the highest mean, less its standard deviation over seeds: a rate at which
    one seed of three fails can have the highest mean. Of one seed, the figure itself. Only as many
    seeds count as every rate of the arm has.

    Args:
        found: a figure of every seed, in their order, by arm and rate.
    """
    common: dict[str, int] = {}
    for (arm, _), values in found.items():
        common[arm] = min(common.get(arm, len(values)), len(values))
    best: dict[str, tuple[float, float]] = {}
    for (arm, rate), values in found.items():
        counted = values[: common[arm]]
        counted_on = fmean(counted) - (stdev(counted) if len(counted) > 1 else 0.0)
        if arm not in best or counted_on > best[arm][0]:
            best[arm] = counted_on, rate
    return {arm: rate for arm, (_, rate) in best.items()}


def table_rows(
    found: Mapping[tuple[str, float], Sequence[Curve]],
) -> list[tuple[str, ...]]:
    """Arm, rate, seeds, and for each figure its mean over seeds and their standard deviation."""
    rows = []
    for (arm, rate), runs in found.items():
        cells = [with_spread(last(runs, figure)) for figure in SHOWN]
        rows.append((arm, f"{rate:g}", str(len(runs)), *cells))
    return rows


def curve_rows(
    found: Mapping[tuple[str, float], Sequence[Curve]], figure: str, rollouts_per_update: int
) -> tuple[list[str], list[list[str]]]:
    """A figure's mean over seeds after so many rollouts, with the headings of that table."""
    each = {arm_and_rate: means(runs, figure) for arm_and_rate, runs in found.items()}
    updates = sorted({update for curve in each.values() for update in curve})
    headings = ["arm", "rate", *(str(update * rollouts_per_update) for update in updates)]
    rows = [
        [arm, f"{rate:g}", *(f"{curve[u]:.3f}" if u in curve else "" for u in updates)]
        for (arm, rate), curve in each.items()
    ]
    return headings, rows


def seed_rows(found: Mapping[tuple[str, float], Sequence[Curve]], figure: str) -> list[list[str]]:
    """Arm, rate, and a figure at the end of each seed, in their order."""
    return [
        [arm, f"{rate:g}", ", ".join(f"{value:.3f}" for value in last(runs, figure))]
        for (arm, rate), runs in found.items()
    ]


def with_spread(values: Sequence[float]) -> str:
    """A mean and, from two values on, their standard deviation."""
    if not values:
        return "none"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


HEADINGS = ("arm", "rate", "seeds", *SHOWN.values())


def as_table(rows: Sequence[Sequence[str]], title: str) -> Table:
    """For a terminal."""
    table = Table(*HEADINGS, title=title)
    table.columns[0].min_width = max(len(row[0]) for row in rows)
    for row in rows:
        table.add_row(*row)
    return table


def as_markdown(rows: Sequence[Sequence[str]], headings: Sequence[str] = HEADINGS) -> str:
    """For a page."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
