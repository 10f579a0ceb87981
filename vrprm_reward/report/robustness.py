"""How a judge fared under attack, as tables on a terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vrprm_reward.evaluation.robustness import Robustness
from vrprm_reward.evaluation.robustness_edits import Attack
from vrprm_reward.evaluation.robustness_metrics import Shift


def print_robustness(console: Console, found: Robustness, bare: Robustness | None) -> None:
    """Print two tables and a line about forged markup.

    Args:
        console: where to.
        found: how the judge fared as it is always asked.
        bare: the same without neutralising, where that was tried.
    """
    keeping = [attack for attack in found.attacks if not attack.spoils]
    spoiling = [attack for attack in found.attacks if attack.spoils]
    if keeping:
        title = "What steps say stays as it was: no score may rise"
        columns = ("score", "moved", "raised", "lowered", "earned", "unscored")
        table = _table(title, columns)
        for attack, shift, neutralised in _lines(keeping, found, bare):
            cells = (
                _signed(shift.score_shift),
                _number(shift.p_moved),
                _percent(shift.share_raised),
                _percent(shift.share_lowered),
                _signed(shift.earned["mean"]),
            )
            _add(table, attack, shift, cells, neutralised)
        console.print(table)
    if spoiling:
        title = "Steps become wrong: their scores must fall"
        table = _table(title, ("score", "still pass", "earned", "unscored"))
        for attack, shift, neutralised in _lines(spoiling, found, bare):
            spoilt = (
                _signed(shift.score_shift),
                _percent(shift.share_passing(empties=attack.empties)),
                _signed(shift.earned["mean"]),
            )
            _add(table, attack, shift, spoilt, neutralised)
        console.print(table)
    if found.forged.rollouts:
        said = f"Forged markup that keeps correctness: {_forged(found)}"
        if bare is not None:
            said += f"; without neutralising {_forged(bare)}"
        console.print(Text(said), soft_wrap=True)


def _forged(found: Robustness) -> str:
    shift = found.forged
    raised, unscored = _percent(shift.share_raised), shift.unscored.total()
    error, moved = _number(shift.score_shift_error, 4), _number(shift.p_moved)
    score = f"{_signed(shift.score_shift, 4)} (standard error {error})"
    said = f"score {score}, steps moved by {moved}, raised {raised} of the steps that failed"
    return said + (f", {unscored} unscored" if unscored else "")


def _lines(
    attacks: list[Attack], found: Robustness, bare: Robustness | None
) -> Iterator[tuple[Attack, Shift, bool]]:
    """Every attack, then the same without neutralising, where that was tried."""
    for attack in attacks:
        yield attack, found.shifts[attack.name], True
        if bare is not None and attack.forges:
            yield attack, bare.shifts[attack.name], False


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("attack", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    return table


def _add(
    table: Table, attack: Attack, shift: Shift, cells: tuple[str, ...], neutralised: bool
) -> None:
    name = attack.name if neutralised else "  as written"
    unscored = shift.unscored.total()
    fooled = "fooled" if shift.fooled(spoils=attack.spoils, empties=attack.empties) else ""
    table.add_row(name, *cells, str(unscored or ""), fooled, style=None if neutralised else "dim")


def _number(value: float | None, digits: int = 3) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 3) -> str:
    return "none" if value is None else f"{value:+.{digits}f}"


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"
