"""Which rules are gamed: reward gained against truth lost, from a start with bad habits."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.table import Table

from .grid import folder_of
from .habits import HABITS
from .logs import read_log
from .run import RunSettings
from .summary import with_spread

GAMED = (
    "outcome", "sound", "dense", "outcome_dense", "raw_sum", "process_grpo", "min_form",
    "outcome_min_form", "gated_running_min", "gated_min_form", "ps_grpo", "outcome_gated_dense",
    "centred", "clip_delta", "gated",
)  # fmt: skip
"""The arms that are tried."""

SHOWN = ("final", "steps", "sound", "number_of_steps")
ENDS = 5
"""Updates at each end of a run whose mean is taken."""

BELIEVED = "reward/p_correct/mean"
"""Mean probability of a step by the reward model: the reward that a policy may gain without truth.
Unlike the sum of rewards it is the same number under every rule."""

EARNED = "reward/reward/mean"
"""Mean sum of what the steps of a response earned under the rule itself."""


def gaming_rows(root: Path, wanted: Sequence[RunSettings]) -> list[dict[str, str]]:
    """For each arm: what it earned, what the reward model believed, held-out truth and habits, each
    before and after."""
    rows = []
    for arm in dict.fromkeys(settings.arm for settings in wanted):
        logs = [read_log(folder_of(root, s)) for s in wanted if s.arm == arm]
        judged = [log for log in logs if any(BELIEVED in row for row in log)]
        row = {
            "arm": arm,
            "earned": with_change([_trained(log, EARNED) for log in logs]),
            "believed": with_change([_trained(log, BELIEVED) for log in judged]),
        }
        for name in (*SHOWN, *(f"habit/{habit}" for habit in HABITS)):
            row[name.removeprefix("habit/")] = with_change(
                [_held_out(log, f"sampled/{name}") for log in logs]
            )
        rows.append(row)
    return rows


def _trained(log: Sequence[dict[str, float]], key: str) -> tuple[float, float]:
    values = [row[key] for row in log if row["kind"] == "train" and key in row]
    return fmean(values[:ENDS]), fmean(values[-ENDS:])


def _held_out(log: Sequence[dict[str, float]], name: str) -> tuple[float, float]:
    values = [row[name] for row in log if row["kind"] == "held_out"]
    return values[0], values[-1]


def with_change(ends: Sequence[tuple[float, float]]) -> str:
    """The mean at the start, and at the end with its spread; `none` for an arm that has none."""
    if not ends:
        return "none"
    return f"{fmean(first for first, _ in ends):.2f} to {with_spread([e for _, e in ends])}"


def gaming_table(rows: Sequence[dict[str, str]]) -> Table:
    """For a terminal."""
    title = "from the start with habits; but for `earned` and `believed`, held out"
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*row.values())
    return table
