"""`vrprm-reward openrlhf-data` and `vrprm-reward openrlhf path`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vrprm_openrlhf import data
from vrprm_reward.errors import RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.outputs import check_output
from vrprm_reward.report.table import one_line
from vrprm_reward.report.terminal import (
    ALL_DONE,
    NOTHING_DONE,
    SOME_FAILED,
    complain,
    open_console,
    plain_errors,
)

app = typer.Typer(
    name="openrlhf",
    help="Process rewards in OpenRLHF.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

FILES = {"agent": "agent.py", "reward": "reward_func.py"}


@app.callback()
def _group() -> None:
    """Process rewards in OpenRLHF."""


@app.command()
def path(
    which: Annotated[
        Literal["agent", "reward"],
        typer.Argument(
            help="agent: for --train.agent_func_path. reward: for --reward.remote_url.",
            show_default=False,
        ),
    ],
) -> None:
    """Print the file that OpenRLHF is given: it loads agents and reward functions by path."""
    typer.echo(Path(__file__).with_name(FILES[which]))


DATA_EPILOG = """\
[bold]Exit status[/]

0  every row was written
1  some rows cannot be used and were left out
2  nothing was written
"""

DATA_HELP = """\
Write rows that OpenRLHF can train on, with everything a reward needs in the label.

A row of IN is an object with [cyan]question[/], [cyan]images[/] (paths, data URLs, URLs or bytes; \
one or a list) and [cyan]answer[/]. A row of OUT has [cyan]prompt[/], [cyan]images[/] and \
[cyan]label[/]. Every image that is no URL is opened.
"""


def openrlhf_data(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A .jsonl or .parquet file.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .jsonl or .parquet file.", show_default=False)
    ],
    question_key: Annotated[str, typer.Option(metavar="KEY", help="The question.")] = "question",
    image_key: Annotated[str, typer.Option(metavar="KEY", help="The images.")] = "images",
    answer_key: Annotated[str, typer.Option(metavar="KEY", help="The answer.")] = "answer",
    no_answers: Annotated[
        bool,
        typer.Option(
            "--no-answers",
            help="There are no answers to check; train with VRPRM_OPENRLHF_COMBINATION=process.",
        ),
    ] = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system prompt for every row.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
) -> None:
    """Check every row, write the good ones, report the others."""
    errors = open_console(sys.stderr)
    columns = data.Columns(
        question=question_key,
        images=image_key,
        answer=None if no_answers else answer_key,
        system=system,
    )
    written = bad = 0
    with plain_errors(errors):
        check_output(target, source=source, overwrite=overwrite)
        images = ImageSettings(root=source.resolve().parent)
        with data.open_output(target) as write:
            for line, row in data.read_rows(source):
                try:
                    if isinstance(row, RowError):
                        raise row
                    write(data.prepared_row(row, line=line, columns=columns, images=images))
                    written += 1
                except RowError as error:
                    complain(errors, "row left out", str(error))
                    bad += 1
            if not written:
                complain(errors, "error", f"{str(source)!r} has no row that can be used")
                raise typer.Exit(NOTHING_DONE)
        typer.echo(one_line(f"wrote {written} rows to {target}; {bad} left out"))
    raise typer.Exit(SOME_FAILED if bad else ALL_DONE)
