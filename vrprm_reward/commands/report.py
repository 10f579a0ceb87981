"""`vrprm-reward report`: one HTML page to look at scores with."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from vrprm_reward.commands import options
from vrprm_reward.errors import InputError, RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.outputs import check_output, write_whole
from vrprm_reward.jobs.source import STANDARD_STREAM, open_rows
from vrprm_reward.process_reward import PACKAGED
from vrprm_reward.report.page import Page
from vrprm_reward.report.pictures import ImageMode, Pictures
from vrprm_reward.report.records import report_row
from vrprm_reward.report.table import one_line
from vrprm_reward.report.terminal import (
    ALL_DONE,
    SOME_FAILED,
    complain,
    open_console,
    plain_errors,
)

MOST_ROLLOUTS = 5000
MEBIBYTE = 2**20

EPILOG = """\
[bold]Examples[/]

[cyan]  vrprm-reward score examples/shapes/rollouts.jsonl -o scores.jsonl[/]
[cyan]  vrprm-reward report scores.jsonl -o report.html[/]

Exit status 0: the page is written; 1: without some rows that are bad; 2: there is none.
"""


def report(
    scores: Annotated[
        str,
        typer.Argument(
            metavar="SCORES",
            help="Output of score, evaluate or best-of-n; - is standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT.html", help="The page; - is standard output."),
    ] = Path("report.html"),
    overwrite: options.Overwrite = False,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most rollouts on the page.")
    ] = MOST_ROLLOUTS,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Heading; by default the file's name.")
    ] = None,
    images: Annotated[
        ImageMode, typer.Option(help="Images inside the page, or links to their files.")
    ] = "embed",
    embed_mb: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Images beyond so many MiB are linked."),
    ] = 64,
) -> None:
    """Make one HTML page of scores: rollouts to sort, filter and read, and figures.

    The page needs no network and no other file, unless images are linked.
    """
    errors = open_console(sys.stderr)
    with plain_errors(errors), open_rows(scores) as source:
        printed = str(output) == STANDARD_STREAM
        if not printed:
            check_output(output, source=source.path, overwrite=overwrite)
        name = "standard input" if scores == STANDARD_STREAM else Path(scores).name
        pictures = Pictures(source.folder, output.parent, images, embed_mb * MEBIBYTE)
        page = Page(title or f"Scores of {name}", pictures, limit)
        bad = 0
        for row in source.read(report_row, ImageSettings(root=source.folder)):
            try:
                if isinstance(row, RowError):
                    raise row
                page.add(row)
            except RowError as error:
                bad += 1
                complain(errors, "bad row", str(error), style="yellow")
        if not page.rollouts:
            raise InputError(f"no row of {source.name} can be shown")
        notes = []
        if PACKAGED.keys() & page.models:
            notes.append(options.DEMO_NOTE)
        if pictures.missing:
            notes.append(f"{pictures.missing:,} images cannot be shown.")
        text = page.html(notes=notes)
        if printed:
            typer.echo(text.encode(errors="replace"), nl=False)
        else:
            write_whole(output, text)
        console = options.words_console(str(output), quiet=False, errors=errors)
        size = len(text) / MEBIBYTE
        place = "standard output" if printed else str(output)
        linked = f", {pictures.linked:,} images linked" if pictures.linked else ""
        console.print(
            Text(f"{len(page.rollouts):,} rollouts, {size:.1f} MiB{linked}: {one_line(place)}"),
            soft_wrap=True,
        )
        if page.left_out:
            console.print(
                Text(f"{page.left_out:,} more rollouts are left out: see --limit"), soft_wrap=True
            )
        raise typer.Exit(SOME_FAILED if bad else ALL_DONE)
