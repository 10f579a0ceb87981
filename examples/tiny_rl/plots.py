"""Pictures of a comparison: a line for each arm, a band for its seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from vrprm_reward.errors import MissingExtraError

from .gaming import BELIEVED
from .summary import Curve, held_out, trained

PANELS = {
    "sampled/final": "final answer right, sampled",
    "greedy/final": "final answer right, greedy",
    "sampled/solved": "needed steps written and right",
    "sampled/right_on_wrong_step": "right answers that rest on a wrong step",
}
"""Held-out figures that are drawn against rollouts."""

WINDOW = 10


def draw_curves(
    found: Mapping[tuple[str, float], Sequence[Curve]],
    path: Path,
    rollouts_per_update: int,
    title: str,
) -> None:
    """Write a PNG. The band reaches from the lowest to the highest seed.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError(
            f"plots need matplotlib ({error}): pip install 'vrprm-reward[plots]'"
        ) from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(15, 8), layout="constrained")
    for axis in axes.flat:  # the usual ten colours would come again
        axis.set_prop_cycle(
            color=matplotlib.colormaps["tab10" if len(found) <= 10 else "tab20"].colors
        )
    places = axes.flat
    for name, label in PANELS.items():
        axis = next(places)
        for (arm, rate), runs in found.items():
            _band(axis, name, runs, rollouts_per_update, f"{arm} (rate {rate:g}, n = {len(runs)})")
        axis.set(ylim=(0, 1), xlabel="rollouts", ylabel=label)
    axes[0, 0].legend(fontsize="small")
    _against_time(next(places), found)
    _reward_against_truth(next(places), found)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _band(axis: Any, name: str, runs: Sequence[Curve], per_update: int, label: str) -> None:
    by_update: dict[int, list[float]] = {}
    for curve in runs:
        for row in held_out(curve):
            if name in row:
                by_update.setdefault(row["update"], []).append(row[name])
    points = sorted(by_update.items())
    x = [update * per_update for update, _ in points]
    (line,) = axis.plot(x, [fmean(values) for _, values in points], label=label)
    low, high = ([pick(values) for _, values in points] for pick in (min, max))
    axis.fill_between(x, low, high, alpha=0.2, color=line.get_color())


def _against_time(axis: Any, found: Mapping[tuple[str, float], Sequence[Curve]]) -> None:
    """Sampled final answers against the seconds of training, evaluations left out."""
    for runs in found.values():
        rows = list(zip(*map(held_out, runs), strict=False))
        seconds = [fmean(row.get("seconds", 0.0) for row in same) for same in rows]
        axis.plot(seconds, [fmean(row["sampled/final"] for row in same) for same in rows])
    axis.set(ylim=(0, 1), xlabel="seconds of one core", ylabel=PANELS["sampled/final"])


def _reward_against_truth(axis: Any, found: Mapping[tuple[str, float], Sequence[Curve]]) -> None:
    """What the reward model believes of the steps against what is true of them, from start to end.

    A point is the mean of `WINDOW` updates of all seeds.
    """
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    for runs in found.values():
        windows: dict[int, list[tuple[float, float]]] = {}
        for row in (row for curve in runs for row in trained(curve)):
            if BELIEVED in row:
                pair = row["steps"], row[BELIEVED]
                windows.setdefault((row["update"] - 1) // WINDOW, []).append(pair)
        points = [tuple(map(fmean, zip(*windows[w], strict=True))) for w in sorted(windows)]
        axis.plot([x for x, _ in points], [y for _, y in points], marker=".")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="steps that are right")
    axis.set_ylabel("steps that the reward model finds right")
