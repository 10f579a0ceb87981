"""Pictures of a comparison: figures against rollouts, a line for each arm, a band for its seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from vrprm_reward.errors import MissingExtraError

from .summary import Curve

PANELS = {
    "sampled/final": "final answer right, sampled",
    "greedy/final": "final answer right, greedy",
    "sampled/solved": "needed steps written and right",
    "sampled/right_on_wrong_step": "right answers that rest on a wrong step",
}


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

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), sharex=True, layout="constrained")
    for axis, (name, label) in zip(axes.flat, PANELS.items(), strict=True):
        for (arm, rate), runs in found.items():
            _band(axis, name, runs, rollouts_per_update, f"{arm} (rate {rate:g}, n = {len(runs)})")
        axis.set(ylim=(0, 1), ylabel=label)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("rollouts")
    axes[0, 0].legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _band(axis: Any, name: str, runs: Sequence[Curve], per_update: int, label: str) -> None:
    by_update: dict[int, list[float]] = {}
    for curve in runs:
        for row in curve:
            if name in row:
                by_update.setdefault(row["update"], []).append(row[name])
    points = sorted(by_update.items())
    x = [update * per_update for update, _ in points]
    (line,) = axis.plot(x, [fmean(values) for _, values in points], label=label)
    low, high = ([pick(values) for _, values in points] for pick in (min, max))
    axis.fill_between(x, low, high, alpha=0.2, color=line.get_color())
