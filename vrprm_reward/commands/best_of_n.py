"""`vrprm-reward best-of-n`: choose one of several answers to each problem."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vrprm_reward.commands import options
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import InputError
from vrprm_reward.jobs.job import OfflineJob
from vrprm_reward.jobs.outputs import image_references, score_values, write_whole
from vrprm_reward.process_reward import DEMO, PACKAGED, load_process_reward
from vrprm_reward.report.progress import JobProgress
from vrprm_reward.report.table import Tally, one_line
from vrprm_reward.report.terminal import ALL_DONE, SOME_FAILED, open_console, plain_errors
from vrprm_reward.rewards.aggregate import AGGREGATIONS, Aggregation
from vrprm_reward.rewards.outcome import OutcomeCheck, load_outcome
from vrprm_reward.sampling.best_of_n import ANY, PASS, RULES, Accuracy, Candidates
from vrprm_reward.sampling.candidates import Answers, ProblemRow, compare_answers, problem_row
from vrprm_reward.types import ProcessScore, Rollout

PROBLEMS_AT_ONCE = 16

HELP = """\
Choose one of several answers to each problem, by step scores and by votes.

A row of the file, JSONL or Parquet, has [cyan]question[/], [cyan]images[/], \
[cyan]candidates[/] (a list of responses, or of objects with [cyan]response[/] or \
[cyan]steps[/]), and optionally [cyan]reference_answer[/] and [cyan]id[/]. All rules choose from \
one scoring; with reference answers, their accuracy is printed for N = 1, 2, 4, … as well. \
The reference answer is not shown to the reward model.
"""

EPILOG = """\
[bold]Examples[/]

[cyan]  vrprm-reward best-of-n problems.jsonl -o chosen.jsonl[/]
[cyan]  vrprm-reward best-of-n problems.parquet -o chosen.parquet --summary summary.json[/]

[bold]Exit status[/]

0  every candidate was scored
1  some rows are bad or some candidates unscored
2  nothing was done: wrong usage, no usable row, or no model
"""


def best_of_n(
    problems: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEMS",
            help="Rows with candidates; - is standard input.",
            show_default=False,
        ),
    ],
    output: options.Output = None,
    summary: Annotated[
        Path | None,
        typer.Option(metavar="OUT.json", help="Write the printed figures there too."),
    ] = None,
    overwrite: options.Overwrite = False,
    limit: options.Limit = None,
    shard: options.ShardPart = None,
    quiet: options.Quiet = False,
    outcome: Annotated[
        str,
        typer.Option(
            metavar="math|exact|none|MODULE:FUNCTION",
            help="How answers are compared, with each other and with the reference.",
        ),
    ] = "math",
    weight: Annotated[
        Aggregation, typer.Option(help="What a vote of the weighted majority counts.")
    ] = "mean",
    show_reference: Annotated[
        bool,
        typer.Option(
            "--show-reference",
            help="Show reference answers to the reward model: results are an oracle's then.",
        ),
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
    """Choose one of several answers to each problem."""
    if output is None and summary is None and quiet:
        raise typer.BadParameter("needs --output or --summary", param_hint="--quiet")
    steps = options.step_settings(split, separator, part)
    local = LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens)
    choice = options.ModelChoice(model, profile, steps, schedule, local)
    errors = open_console(sys.stderr)
    with plain_errors(errors), JobProgress(errors, shown=not quiet) as progress:
        settings = replace(
            options.job_settings(problems, output, overwrite, limit, shard),
            rows_at_once=PROBLEMS_AT_ONCE,
        )
        started = time.monotonic()
        accuracy, tally = Accuracy(), Tally("candidate")
        with OfflineJob(settings, problem_row, progress) as job:
            options.check_figures(job, summary, "--summary", overwrite=overwrite)
            check = _outcome(outcome)
            reward = load_process_reward(model, **choice.arguments(job.images))
            options.check_reference_use(reward, wanted=show_reference)
            job.check()
            kept = job.keep(reward, choice.asker(reward))
            asked = {
                "reference_shown": show_reference,
                "model": model,
                "profile": options.profile_name(reward),
            }
            with options.records(job, output) as write:
                shown = partial(_shown, show_reference=show_reference)
                for piece in job.scored("scoring", kept, shown):
                    compared = asyncio.run(_compared([row for row, _ in piece], check))
                    for (row, scores), answers in zip(piece, compared, strict=True):
                        tally.add(scores)
                        found = Candidates(
                            tuple(s.p_correct if s.scored else None for s in scores),
                            answers.votes,
                            weight,
                        )
                        accuracy.add(found, answers.right)
                        images = image_references(
                            row.problem.images, job.source.folder, settings.output
                        )
                        record = choice_record(row, scores, answers, found, images)
                        write({**record, **asked})
            options.close(reward)
        options.close(check)
        tally.bad = job.bad
        figures = _figures(accuracy, reference_shown=show_reference)
        if summary is not None:
            write_whole(summary, json.dumps(figures, indent=2, allow_nan=False) + "\n")
        console = options.words_console(output, quiet, errors)
        if not quiet:
            _print_figures(console, accuracy, show_reference)
        console.print(tally.line(time.monotonic() - started))
        if settings.output is not None:
            console.print(Text(f"Choices are in {one_line(str(output))}"), soft_wrap=True)
        if model in PACKAGED:
            console.print(Text(options.DEMO_NOTE, style="dim"))
        raise typer.Exit(ALL_DONE if tally.complete else SOME_FAILED)


def _outcome(name: str) -> OutcomeCheck:
    """A check that has been seen to work, before the model is loaded."""
    try:
        check = load_outcome(name)
    except ValueError as error:
        raise InputError(str(error)) from error
    if name == "math":
        asyncio.run(check.acheck("\\boxed{1}", "1"))
    return check


def _shown(row: ProblemRow, show_reference: bool) -> Sequence[Rollout]:
    """The candidates as they are scored: without the reference answer, unless asked for."""
    if not show_reference:
        return row.rollouts
    return [rollout.model_copy(update={"problem": row.problem}) for rollout in row.rollouts]


async def _compared(rows: Sequence[ProblemRow], check: OutcomeCheck) -> list[Answers]:
    return await asyncio.gather(*(compare_answers(row, check) for row in rows))


def choice_record(
    row: ProblemRow,
    scores: Sequence[ProcessScore],
    answers: Answers,
    found: Candidates,
    images: Sequence[str],
) -> dict[str, Any]:
    """The row of an output file: the choice of every rule, and all that it was made from."""
    return {
        "id": row.id,
        "line": row.line,
        "question": row.problem.question,
        "images": list(images),
        "reference_answer": row.problem.reference_answer,
        "chosen": {rule: found.choose(rule) for rule in RULES},
        "weight": found.weight,
        "candidates": [
            {
                "response": rollout.response,
                "answer": answers.texts[index],
                "vote": answers.votes[index],
                "right": answers.right[index],
                "scores": {rule: found.scores[rule][index] for rule in AGGREGATIONS},
                **score_values(score),
            }
            for index, (rollout, score) in enumerate(zip(row.rollouts, scores, strict=True))
        ],
    }


def _figures(accuracy: Accuracy, *, reference_shown: bool) -> dict[str, Any]:
    return {
        "problems": accuracy.problems,
        "problems_without_known_outcome": accuracy.unknown,
        "problems_without_choice": accuracy.no_choice,
        "reference_shown_to_the_reward_model": reference_shown,
        "accuracy": {
            rule: {str(n): value for n, value in curve.items()}
            for rule, curve in accuracy.curves().items()
        },
    }


def _print_figures(console: Console, accuracy: Accuracy, reference_shown: bool) -> None:
    shown = "SHOWN" if reference_shown else "not shown"
    left_out = f"{accuracy.unknown} problems have no reference answer that answers can be held to"
    curves = accuracy.curves()
    if not curves:
        console.print(Text(f"No accuracy: {left_out}."), soft_wrap=True)
        return
    ns = list(curves[ANY])
    console.print(accuracy_table(curves, f"Accuracy, best of N, {accuracy.problems} problems", ns))
    console.print(Text(f"The reference answer was {shown} to the reward model."), soft_wrap=True)
    if accuracy.unknown:
        console.print(Text(f"Left out: {left_out}."), soft_wrap=True)
    if accuracy.no_choice:
        console.print(
            Text(f"{accuracy.no_choice} problems have no scored candidate, and count as wrong."),
            soft_wrap=True,
        )


def accuracy_table(
    curves: Mapping[str, Mapping[int, float]], title: str, ns: Sequence[int]
) -> Table:
    """A line per rule, a column per N; needs all of `RULES`, `pass@n` and `any one`."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("rule")
    for n in ns:
        table.add_column(f"N = {n}", justify="right")
    for rule in (*RULES, PASS, ANY):
        name = rule.replace("_", " ")
        table.add_row(
            name, *(f"{curves[rule][n]:.3f}" for n in ns), end_section=rule in (RULES[-1],)
        )
    return table
