"""`vrprm-reward evaluate`: how well a process reward judges, on benchmarks with step labels.

The command of the robustness suite, which is mounted here, stands in `robustness`.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vrprm_reward.commands import options, robustness
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import InputError
from vrprm_reward.evaluation.metrics import OFFICIAL, Measured
from vrprm_reward.evaluation.visualprocessbench import (
    Benchmark,
    BenchmarkRow,
    benchmark_row,
    find_rows,
    label_values,
)
from vrprm_reward.jobs.job import OfflineJob
from vrprm_reward.jobs.kept import KeptReward
from vrprm_reward.jobs.outputs import score_record, write_whole
from vrprm_reward.jobs.rows import Row
from vrprm_reward.jobs.source import Shard
from vrprm_reward.process_reward import DEMO, PACKAGED, load_process_reward
from vrprm_reward.report.progress import JobProgress
from vrprm_reward.report.table import Tally, one_line
from vrprm_reward.report.terminal import ALL_DONE, SOME_FAILED, open_console, plain_errors
from vrprm_reward.types import Rollout

BAD_ROWS_LISTED = 50
VISUALPRM = 0.85
"""The threshold that VisualPRM is evaluated at."""

app = typer.Typer(
    help="Measure a reward model: on labelled benchmarks, and under attack.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("robustness", epilog=robustness.EPILOG)(robustness.robustness)

EPILOG = """\
[bold]Examples[/]

[cyan]  vrprm-reward evaluate visualprocessbench VisualProcessBench --model ./vrprm-4b[/]
[cyan]  … -o steps.jsonl --metrics figures.json[/]  then  [cyan]vrprm-reward report steps.jsonl[/]

[bold]Exit status[/]

0  every rollout was scored
1  some rollouts are unscored (their steps count as invalid)
2  nothing was done: wrong usage, a row or an image is missing or bad, or no model
"""


@app.command("visualprocessbench", epilog=EPILOG)
def visualprocessbench(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="The benchmark's folder (test.jsonl and images), or its file of rows.",
            show_default=False,
        ),
    ],
    output: options.Output = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="OUT.json", help="Write all figures there.")
    ] = None,
    overwrite: options.Overwrite = False,
    limit: options.Limit = None,
    shard: options.ShardPart = None,
    quiet: options.Quiet = False,
    show_reference: Annotated[
        bool,
        typer.Option(
            "--show-reference",
            help="Show reference answers to the reward model, unlike the official protocol.",
        ),
    ] = False,
    model: options.Model = DEMO,
    profile: options.ProfileName = None,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
    schedule: options.Order = "auto",
    pass_tokens: options.PassTokens = None,
) -> None:
    """Judge the steps of VisualProcessBench and compare with its labels.

    The official figure is the macro-F1 over all steps, pooled. With --limit or --shard it is that
    of a part, which is not the benchmark's. A missing image, or any row that
    cannot be read, ends it before a model is loaded.
    """
    local = LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens)
    steps = options.step_settings("vrprm", None, "all")
    choice = options.ModelChoice(model, profile, steps, schedule, local)
    errors = open_console(sys.stderr)
    with plain_errors(errors), JobProgress(errors, shown=not quiet) as progress:
        progress.most_bad_rows = BAD_ROWS_LISTED
        settings = options.job_settings(str(find_rows(path)), output, overwrite, limit, shard)
        started = time.monotonic()
        benchmark, tally = Benchmark(), Tally()
        with OfflineJob(settings, benchmark_row, progress) as job:
            options.check_figures(job, metrics, "--metrics", overwrite=overwrite)
            job.check()
            if job.bad:
                raise InputError(
                    f"{job.bad} of {job.bad + job.good} rows cannot be used, as said above; "
                    "nothing was scored, since figures over a part are not the benchmark's: "
                    "complete the download"
                )
            part = settings.shard != Shard() or (limit is not None and job.good >= limit)
            reward = load_process_reward(model, **choice.arguments(job.images))
            options.check_reference_use(reward, wanted=show_reference)
            kept = job.keep(reward, choice.asker(reward))
            with options.records(job, output) as write:
                shown = partial(_shown, show_reference=show_reference)
                for piece in job.scored("scoring", kept, lambda row: [shown(row)]):
                    for row, (score,) in piece:
                        tally.add([score])
                        benchmark.add(row, score)
                        record = score_record(
                            Row(row.line, row.id, row.rollout),
                            score,
                            model=model,
                            profile=options.profile_name(reward),
                            root=job.source.folder,
                            output=settings.output,
                        )
                        write({**record, **label_values(row, row.p_correct(score))})
            options.close(reward)
        figures = {
            **benchmark.figures(),
            "only_a_part_of_the_rows": part,
            "reference_shown_to_the_reward_model": show_reference,
            "cost": cost_figures(tally, kept),
            "model": model,
            "profile": options.profile_name(reward),
        }
        if metrics is not None:
            write_whole(metrics, json.dumps(figures, indent=2, allow_nan=False) + "\n")
        console = options.words_console(output, quiet, errors)
        if not quiet:
            print_benchmark(console, benchmark, figures["cost"], part=part)
        console.print(tally.line(time.monotonic() - started))
        if settings.output is not None:
            console.print(Text(f"Scores are in {one_line(str(output))}"), soft_wrap=True)
        if model in PACKAGED:
            console.print(Text(options.DEMO_NOTE, style="dim"))
        raise typer.Exit(ALL_DONE if tally.complete else SOME_FAILED)


def _shown(row: BenchmarkRow, show_reference: bool) -> Rollout:
    """What is scored: the rollout, without its reference answer unless that was asked for."""
    if show_reference:
        return row.rollout
    problem = row.rollout.problem.model_copy(update={"reference_answer": None})
    return row.rollout.model_copy(update={"problem": problem})


def cost_figures(tally: Tally, kept: KeptReward) -> dict[str, Any]:
    """Means per rollout. Seconds are of this run alone: None where all scores were found."""
    rollouts = max(1, tally.scored + tally.unscored.total())
    return {
        "prompt_tokens_per_rollout": tally.usage.prompt_tokens / rollouts,
        "generated_tokens_per_rollout": tally.usage.generated_tokens / rollouts,
        "requests_per_rollout": tally.usage.requests / rollouts,
        "rounds_per_rollout": tally.usage.rounds / rollouts,
        "seconds_per_rollout": kept.seconds / kept.computed if kept.computed else None,
    }


def print_benchmark(
    console: Console, benchmark: Benchmark, cost: dict[str, Any], *, part: bool = False
) -> None:
    """The figures as tables; those of a part of the rows are not called official."""
    table = Table(
        title="VisualProcessBench: F1 of steps, of both classes and their mean",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("source", overflow="fold")
    for name in ("rollouts", "steps", "macro-F1", "correct", "incorrect", "first error"):
        table.add_column(name, justify="right", no_wrap=True)
    sources = sorted(benchmark.by_source.items())
    for index, (name, measured) in enumerate(sources, start=1):
        table.add_row(one_line(name), *_cells(measured), end_section=index == len(sources))
    pooled = benchmark.pooled
    name = "all of this part" if part else "all (official)"
    table.add_row(name, *_cells(pooled), style="bold")
    alone = pooled.scored_only
    table.add_row(
        "scored only",
        str(pooled.scored),
        str(alone.steps),
        *(
            _number(f1 if alone.steps else None)
            for f1 in (alone.macro_f1, alone.correct_f1, alone.incorrect_f1)
        ),
        _number(_of(pooled.first_error_found, pooled.scored_with_labels)),
    )
    console.print(table)
    lines = [
        f"Scored: {pooled.scored / max(1, pooled.rollouts):.1%} of the rollouts. Steps left out as "
        f"neutral: {pooled.neutral}; without a verdict (invalid): {pooled.official.invalid}",
        f"Mean of the sources' macro-F1: {_number(benchmark.mean_source_macro_f1)}",
        f"Calibration error (ECE, 10 bins): {_number(pooled.calibration.error)}",
        f"Cost per rollout: {cost['prompt_tokens_per_rollout']:.0f} prompt and "
        f"{cost['generated_tokens_per_rollout']:.0f} generated tokens, "
        f"{cost['rounds_per_rollout']:.1f} rounds, {_number(cost['seconds_per_rollout'], 3)} s",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    console.print(_threshold_table(pooled))


def _threshold_table(pooled: Measured) -> Table:
    shown = [t for t in pooled.by_threshold if round(t * 100) % 10 == 0 or t == VISUALPRM]
    title = f"Macro-F1 by threshold (official: {OFFICIAL})"
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for threshold in shown:
        table.add_column(f"{threshold:.2f}", justify="right")
    table.add_row(*(f"{pooled.by_threshold[t].macro_f1:.3f}" for t in shown))
    return table


def _cells(measured: Measured) -> list[str]:
    found = measured.official
    return [
        str(measured.rollouts),
        str(found.steps),
        f"{found.macro_f1:.4f}",
        f"{found.correct_f1:.4f}",
        f"{found.incorrect_f1:.4f}",
        _number(_of(measured.first_error_found, measured.with_labels)),
    ]


def _of(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _number(value: float | None, digits: int = 4) -> str:
    return "none" if value is None else f"{value:.{digits}f}"
