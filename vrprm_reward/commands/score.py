"""`vrprm-reward score`: read rollouts, score them, print and write the scores."""

import contextlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import InputError, RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.outputs import atomic_jsonl, check_output, json_line, score_record
from vrprm_reward.jobs.rows import STANDARD_STREAM, Row, RowSource, open_rows
from vrprm_reward.process_reward import DEMO, ProcessReward, load_process_reward
from vrprm_reward.report.table import RolloutPrinter, Tally, one_line
from vrprm_reward.report.terminal import (
    ALL_DONE,
    SOME_FAILED,
    complain,
    hidden,
    make_progress,
    open_console,
    plain_errors,
)
from vrprm_reward.scoring.profile import Profile, builtin_profiles
from vrprm_reward.scoring.schedule import Schedule
from vrprm_reward.steps import StepPart, StepRule, StepSettings
from vrprm_reward.types import ProcessScore

ROWS_AT_ONCE = 64
"""Rollouts handed to the reward model in one call; results appear after each call."""

_DEMO_NOTE = (
    "Scored by the packaged demo model: it knows only its own world of drawn shapes, and in its "
    "present state it does not hold steps against the picture (see README)."
)

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def complete_profile(incomplete: str) -> list[str]:
    """Packaged profiles for shell completion."""
    return [name for name in builtin_profiles() if name.startswith(incomplete)]


HELP = """\
Score the steps of rollouts: for each, the probability that it is correct.

A row of the file is a JSON object: [cyan]question[/], [cyan]images[/] (a path or a list of \
them, relative to the file), [cyan]response[/] or [cyan]steps[/] (a list of texts), and \
optionally [cyan]id[/] and [cyan]reference_answer[/]. A row that cannot be used is reported \
with its line and field, and the rest is scored.
"""

EPILOG = """\
[bold]Examples[/]

The packaged demo model, tables on the terminal:
[cyan]  vrprm-reward score examples/shapes/rollouts.jsonl[/]

A checkpoint of your own, scores into a file:
[cyan]  vrprm-reward score rollouts.jsonl -o scores.jsonl --model ./vrprm-4b[/]

Only the policy's answer, a step per line, in a pipe:
[cyan]  … | vrprm-reward score - -o - --part answer --split separator --separator '\\n'[/]

[bold]Exit status[/]

0  every row was scored
1  some rows are bad or unscored
2  nothing was done: wrong usage, no usable row, or no model
"""


def score(
    rollouts: Annotated[
        str,
        typer.Argument(
            metavar="ROLLOUTS.jsonl", help="Rows to score; - is standard input.", show_default=False
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.jsonl",
            help="Write the scores there; - is standard output.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT.jsonl if it exists.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N rows.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No tables and no progress bar.")
    ] = False,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="Print the reward model's thinking too.")
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            metavar="demo|PATH|ID",
            help="The demo, the folder of a checkpoint, or a model id.",
            rich_help_panel="Model",
        ),
    ] = DEMO,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="How the model is spoken to; by default the model's usual one.",
            autocompletion=complete_profile,
            rich_help_panel="Model",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, …", rich_help_panel="Model")
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel="Model"),
    ] = "auto",
    schedule: Annotated[
        Schedule,
        typer.Option(help="Order of the judgements; same scores.", rich_help_panel="Model"),
    ] = "auto",
    pass_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Bound on the tokens of one forward pass.",
            rich_help_panel="Model",
        ),
    ] = None,
    split: Annotated[
        StepRule,
        typer.Option(help="How a response is cut into steps.", rich_help_panel="Steps"),
    ] = "vrprm",
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=r"What stands between steps; \n, \t, \r and \\ are understood.",
            rich_help_panel="Steps",
        ),
    ] = None,
    part: Annotated[
        StepPart,
        typer.Option(help="Which part of a response is judged.", rich_help_panel="Steps"),
    ] = "all",
) -> None:
    """Read rollouts, score them, print and write the scores."""
    if quiet and output is None:
        raise typer.BadParameter("needs --output, or the scores are lost", param_hint="--quiet")
    steps = step_settings(split, separator, part)
    target = None if output in (None, STANDARD_STREAM) else Path(output or "")
    errors = open_console(sys.stderr)
    with plain_errors(errors), open_rows(rollouts) as source:
        if target is not None:
            check_output(target, source=source.path, overwrite=overwrite)
        images = ImageSettings(root=source.folder)
        reward = load_process_reward(
            model,
            profile=profile,
            steps=steps,
            images=images,
            schedule=schedule,
            local=LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens),
        )
        console = errors
        if not quiet and output != STANDARD_STREAM:
            console = open_console(sys.stdout, keep_going=target is not None)
        started = time.monotonic()
        with make_progress(errors, shown=not quiet) as progress:
            checked = _check_rows(source, images, limit, progress)
            printer = RolloutPrinter(console, checked.candidates, thinking=thinking)
            with _writer(target, to_stdout=output == STANDARD_STREAM) as write:

                def take(row: Row, score: ProcessScore) -> None:
                    write(score_record(row, score, model=model, profile=_profile_name(reward)))
                    if not quiet:
                        printer.show(row, score)

                rows = _not_reported(source.rows(images, limit), checked, progress)
                tally = _score_rows(reward, rows, take, progress, total=checked.readable)
        tally.bad = len(checked.bad)
        if not quiet:
            console.print()
        console.print(tally.line(time.monotonic() - started))
        if target is not None:
            console.print(Text(f"Scores are in {one_line(str(target))}"), soft_wrap=True)
        if model == DEMO:
            console.print(Text(_DEMO_NOTE, style="dim"))
        raise typer.Exit(ALL_DONE if tally.complete else SOME_FAILED)


@dataclass
class _Checked:
    """What a first reading of the rows found."""

    readable: int = 0
    bad: set[int] = field(default_factory=set)
    """Lines that were reported."""
    candidates: Counter[bytes] = field(default_factory=Counter)
    """Rows of each problem."""

    def report(self, error: RowError, console: Console) -> None:
        if error.line not in self.bad:
            self.bad.add(error.line)
            complain(console, "bad row", str(error), style="yellow")


def _check_rows(
    source: RowSource, images: ImageSettings, limit: int | None, progress: Progress
) -> _Checked:
    """Read all rows once and report the bad ones, before the model is loaded."""
    task = progress.add_task("checking rows", total=None)
    checked = _Checked()
    for row in source.rows(images, limit):
        if isinstance(row, RowError):
            checked.report(row, progress.console)
        else:
            checked.readable += 1
            checked.candidates[row.problem_key()] += 1
    progress.remove_task(task)
    if not checked.readable:
        why = f"all {len(checked.bad)} are bad" if checked.bad else "it is empty"
        raise InputError(f"no row of {source.name} can be scored: {why}")
    return checked


def _not_reported(
    rows: Iterator[Row | RowError], checked: _Checked, progress: Progress
) -> Iterator[Row]:
    """The readable rows. A row that has become bad since the check is reported now."""
    for row in rows:
        if isinstance(row, RowError):
            checked.report(row, progress.console)
        else:
            yield row


def _score_rows(
    reward: ProcessReward,
    rows: Iterator[Row],
    take: Callable[[Row, ProcessScore], None],
    progress: Progress,
    *,
    total: int,
) -> Tally:
    """Score rows as they are read, some at a time, and hand each on with its score."""
    task = progress.add_task("scoring", total=total)
    tally = Tally()
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        scores = reward.score([row.rollout for row in chunk])
        tally.add(scores)
        with hidden(progress):
            for row, score in zip(chunk, scores, strict=True):
                take(row, score)
        progress.advance(task, len(chunk))
    close = getattr(reward, "close", None)
    if callable(close):
        close()
    return tally


def _profile_name(reward: ProcessReward) -> str | None:
    profile = getattr(reward, "profile", None)
    return profile.name if isinstance(profile, Profile) else None


def step_settings(split: StepRule, separator: str | None, part: StepPart) -> StepSettings:
    """Step settings from options of a command line. Raises `typer.BadParameter`."""
    if split == "separator" and not separator:
        raise typer.BadParameter("needs --separator TEXT", param_hint="--split separator")
    if split != "separator" and separator is not None:
        raise typer.BadParameter("needs --split separator", param_hint="--separator")
    if separator is not None:
        # Only these: Python's own decoding of escapes would break text outside ASCII.
        separator = re.sub(r"\\([ntr\\])", lambda escape: _ESCAPES[escape[1]], separator)
    return StepSettings(rule=split, separator=separator, part=part)


@contextlib.contextmanager
def _writer(
    target: Path | None, *, to_stdout: bool
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that takes one record to the output: a file, standard output, or nowhere."""
    if target is not None:
        with atomic_jsonl(target) as write:
            yield write
    elif to_stdout:
        yield lambda record: typer.echo(json_line(record), nl=False)
    else:
        yield lambda _: None
