"""`vrprm-reward score`: read rollouts, score them, print and write the scores."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from vrprm_reward.commands import options
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.jobs.job import OfflineJob
from vrprm_reward.jobs.outputs import score_record
from vrprm_reward.jobs.rows import Row, rollout_row
from vrprm_reward.process_reward import DEMO, PACKAGED, load_process_reward
from vrprm_reward.report.progress import JobProgress
from vrprm_reward.report.table import RolloutPrinter, Tally, one_line
from vrprm_reward.report.terminal import (
    ALL_DONE,
    SOME_FAILED,
    open_console,
    plain_errors,
)

MOST_PROBLEMS_COUNTED = 20_000
"""Beyond so many problems of several candidates the best candidate of each is not named."""

HELP = """\
Score the steps of rollouts: for each, the probability that it is correct.

A row of the file, JSONL or Parquet, has [cyan]question[/], [cyan]images[/] (a path or a list of \
them, relative to the file), [cyan]response[/] or [cyan]steps[/] (a list of texts), and \
optionally [cyan]id[/] and [cyan]reference_answer[/]. A row that cannot be used is reported \
with its line and field, and the rest is scored. A job that was interrupted or killed goes on \
when the same command is given again.
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
            metavar="ROLLOUTS", help="Rows to score; - is standard input.", show_default=False
        ),
    ],
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    limit: options.Limit = None,
    shard: options.ShardPart = None,
    quiet: options.Quiet = False,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="Print the reward model's thinking too.")
    ] = False,
    model: options.Model = DEMO,
    profile: options.ProfileName = None,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
    schedule: options.Order = "auto",
    pass_tokens: options.PassTokens = None,
    split: options.Split = "vrprm",
    separator: options.Separator = None,
    part: options.Part = "all",
) -> None:
    """Read rollouts, score them, print and write the scores."""
    if quiet and output is None:
        raise typer.BadParameter("needs --output, or the scores are lost", param_hint="--quiet")
    steps = options.step_settings(split, separator, part)
    local = LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens)
    choice = options.ModelChoice(model, profile, steps, schedule, local)
    errors = open_console(sys.stderr)
    with plain_errors(errors), JobProgress(errors, shown=not quiet) as progress:
        settings = options.job_settings(rollouts, output, overwrite, limit, shard)
        target = settings.output
        console = options.words_console(output, quiet, errors)
        started = time.monotonic()
        tally = Tally()
        with OfflineJob(settings, rollout_row, progress) as job:
            reward = load_process_reward(model, **choice.arguments(job.images))
            candidates: Counter[bytes] = Counter()
            job.check((lambda _: None) if quiet else _counting(candidates))
            kept = job.keep(reward, choice.asker(reward))
            printer = RolloutPrinter(console, candidates, thinking=thinking)
            record = partial(
                score_record,
                model=model,
                profile=options.profile_name(reward),
                root=job.source.folder,
                output=target,
            )
            with options.records(job, output) as write:
                for piece in job.scored("scoring", kept, lambda row: [row.rollout]):
                    with progress.hidden():
                        for row, (result,) in piece:
                            tally.add([result])
                            write(record(row, result))
                            if not quiet:
                                printer.show(row, result)
            options.close(reward)
        tally.bad = job.bad
        if not quiet:
            console.print()
        console.print(tally.line(time.monotonic() - started))
        if target is not None:
            console.print(Text(f"Scores are in {one_line(str(target))}"), soft_wrap=True)
        if model in PACKAGED:
            console.print(Text(options.DEMO_NOTE, style="dim"))
        raise typer.Exit(ALL_DONE if tally.complete else SOME_FAILED)


def _counting(candidates: Counter[bytes]) -> Callable[[Row], None]:
    """Counts the candidates of each problem, of so many problems at most."""

    def count(row: Row) -> None:
        key = row.problem_key()
        if key in candidates or len(candidates) < MOST_PROBLEMS_COUNTED:
            candidates[key] += 1

    return count
