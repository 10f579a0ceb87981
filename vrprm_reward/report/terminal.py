"""What every command shares: consoles, the progress bar, and errors as one line."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vrprm_reward.errors import VRPRMError
from vrprm_reward.report.table import one_line

ALL_DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses of every command."""


@contextlib.contextmanager
def plain_errors(console: Console) -> Iterator[None]:
    """Around a command: what a user can mend ends it with one line instead of a traceback."""
    try:
        yield
    except VRPRMError as error:
        complain(console, "error", str(error))
        raise typer.Exit(NOTHING_DONE) from None
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        complain(console, "error", str(error))
        raise typer.Exit(NOTHING_DONE) from None
    except KeyboardInterrupt:
        complain(console, "interrupted", "no output file was written", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


def complain(console: Console, kind: str, message: str, *, style: str = "red") -> None:
    """Print a message on one line, its kind in front."""
    text = Text.assemble((f"{kind}: ", f"bold {style}"), one_line(message))
    console.print(text, soft_wrap=True)


def make_progress(console: Console, *, shown: bool) -> Progress:
    """A progress bar that leaves no trace; without effect unless stderr is a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not (shown and sys.stderr.isatty()),
    )


@contextlib.contextmanager
def hidden(progress: Progress) -> Iterator[None]:
    """Take the bar off the screen, so that what is printed on stdout does not mix with it."""
    progress.stop()
    try:
        yield
    finally:
        progress.start()


class _Console(Console):
    """A console whose reader may leave (`| head`) without ending work that goes into a file."""

    keep_going = False

    def on_broken_pipe(self) -> None:
        if not self.keep_going:
            super().on_broken_pipe()
        self.quiet = True
        # What is still buffered must go somewhere, or Python complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def open_console(stream: TextIO, *, keep_going: bool = False) -> Console:
    """A console that has colours on a terminal only (see NO_COLOR) and any character.

    Args:
        stream: where it prints; characters outside its encoding become `?`.
        keep_going: whether the command goes on when the reader of the stream is gone.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = _Console(file=stream, highlight=False)
    console.keep_going = keep_going
    return console
