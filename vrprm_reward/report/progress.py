"""How far an offline job is: a bar with rate and time left, or lines without a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from vrprm_reward.errors import RowError
from vrprm_reward.report.table import duration
from vrprm_reward.report.terminal import complain, hidden

SECONDS_BETWEEN_LINES = 30.0


class JobProgress:
    """Tells a person how a job goes on. Bad rows and what is resumed are always told.

    Args:
        console: standard error.
        shown: whether progress is shown at all.
    """

    def __init__(self, console: Console, *, shown: bool) -> None:
        self.console = console
        self.most_bad_rows: int | None = None
        """So many bad rows are listed; None: all."""
        self._bad_rows = 0
        on_terminal = sys.stderr.isatty()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not (shown and on_terminal),
        )
        self._lines = shown and not on_terminal
        self._task: TaskID | None = None
        self._what = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._last_line = time.monotonic()

    def begin(self, what: str, total: int | None) -> None:
        """A stretch of work begins."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, pace="")
        self._what, self._total, self._done = what, total, 0
        self._began = self._last_line = time.monotonic()

    def advance(self, rows: int, computed: int) -> None:
        """`rows` more are done; `computed` rollouts were scored anew."""
        self._done += rows
        now = time.monotonic()
        words = pace(self._done, self._total, computed, now - self._began)
        if self._task is not None:
            self._bar.update(self._task, advance=rows, pace=words)
        if self._lines and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            of = "" if self._total is None else f" of {self._total:,}"
            self.console.print(Text(f"{self._what}: {self._done:,}{of} rows, {words}"))

    def bad_row(self, error: RowError) -> None:
        """A row cannot be used."""
        self._bad_rows += 1
        if self.most_bad_rows is None or self._bad_rows <= self.most_bad_rows:
            complain(self.console, "bad row", str(error), style="yellow")
        elif self._bad_rows == self.most_bad_rows + 1:
            self.console.print(Text("… and more rows that cannot be used"))

    def resumed(self, count: int) -> None:
        """Finished work was found."""
        self.console.print(
            Text(f"Going on from {count:,} finished {_pieces(count)} of work."), soft_wrap=True
        )

    def kept(self, count: int, path: Path) -> None:
        """The job ended early."""
        complain(
            self.console,
            "kept",
            f"{count:,} finished {_pieces(count)} of work in {path}: the same command goes on "
            "from there",
            style="yellow",
        )

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar off the screen while something is printed."""
        with hidden(self._bar):
            yield

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


def pace(done: int, total: int | None, computed: int, seconds: float) -> str:
    """Rate and time left: "12.3 rollouts/s, 3 min 5 s left".

    Args:
        done: rows done in this run, found ones included.
        total: rows in all, if known.
        computed: rollouts that were scored anew, which is what takes time.
        seconds: since this run began.
    """
    if not seconds:
        return ""
    rate = f"{computed / seconds:.1f} rollouts/s" if computed else "nothing new"
    if not total or not done:
        return rate
    left = seconds * (total - done) / done
    return f"{rate}, {duration(left)} left"


def _pieces(count: int) -> str:
    return "piece" if count == 1 else "pieces"
