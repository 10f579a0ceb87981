"""`vrprm-reward sample`: build training data step by step, keeping the steps that pass."""

import asyncio
import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from vrprm_reward.commands import options
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.engines.openai.errors import ServerRefusedError
from vrprm_reward.errors import ImageError, InputError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields
from vrprm_reward.jobs.job import JobSettings, OfflineJob
from vrprm_reward.jobs.keys import digest, problem_key
from vrprm_reward.jobs.outputs import atomic_output, check_output, image_references
from vrprm_reward.jobs.source import STANDARD_STREAM
from vrprm_reward.process_reward import DEMO, PACKAGED, ProcessReward, load_process_reward
from vrprm_reward.report.progress import JobProgress
from vrprm_reward.report.table import duration, one_line
from vrprm_reward.report.terminal import ALL_DONE, SOME_FAILED, open_console, plain_errors
from vrprm_reward.sampling.kept_policy import KeptPolicy
from vrprm_reward.sampling.policy import OpenAIPolicy, OpenAIPolicySettings, Policy
from vrprm_reward.sampling.rejection import Found, Pick, SearchSettings, Spent, all_of, search
from vrprm_reward.sampling.training_rows import conversations, labelled_steps, step_pairs
from vrprm_reward.types import Problem

POLICY_KEY = "VRPRM_POLICY_KEY"
SEARCHES_AT_ONCE = 16
REFUSED_FOR_THE_REQUEST = (400, 413, 422)
"""HTTP statuses that speak of one request, such as a prompt that is too long, not of them all."""

HELP = """\
Build solutions step by step: a policy proposes, the reward model lets steps pass or rejects them.

A row of the file has [cyan]question[/], [cyan]images[/], and optionally \
[cyan]reference_answer[/] (shown to nobody) and [cyan]id[/]. Into the folder OUT go \
[cyan]sft.jsonl[/] (conversations of the accepted solutions), [cyan]pairs.jsonl[/] (an accepted \
and a rejected step behind the same prefix), [cyan]labels.jsonl[/] (steps with scores) and \
[cyan]trajectories.jsonl[/] (everything, with what it cost).
"""

EPILOG = """\
[bold]Examples[/]

A policy served by vLLM:
[cyan]  vrprm-reward sample tasks.jsonl -o sampled --policy http://127.0.0.1:8001/v1 \
--policy-model Qwen/Qwen2.5-VL-7B-Instruct[/]

Your own policy, an object or a function that returns one:
[cyan]  vrprm-reward sample tasks.jsonl -o sampled --policy my_module:policy[/]

[bold]Exit status[/]

0  every problem has a solution
1  some have none, or some rows are bad
2  nothing was done: wrong usage, no usable row, no model or no policy
"""


@dataclass(frozen=True)
class TaskRow:
    """A problem to be solved."""

    line: int
    id: str | int
    problem: Problem

    def problem_key(self) -> bytes:
        """Equal for rows with the same question and images."""
        return problem_key(self.problem)


def task_row(fields: Fields, images: ImageSettings) -> TaskRow:
    """A row without a response. Raises `RowError`."""
    return TaskRow(fields.line, fields.id(), fields.problem(images))


def sample(
    tasks: Annotated[
        str,
        typer.Argument(
            metavar="TASKS", help="Rows with problems; - is standard input.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="Folder for the results; is made."),
    ],
    policy: Annotated[
        str,
        typer.Option(
            metavar="URL|MODULE:NAME", help="An OpenAI-compatible server, or a Python object."
        ),
    ],
    policy_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The policy's name on its server.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system prompt for the policy.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the policy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the policy.")] = 0.95,
    step_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most tokens of one step.")
    ] = 512,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Searches for each problem.")
    ] = 1,
    proposals: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps proposed at one time.")
    ] = 4,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Steps less probable than this are rejected.")
    ] = 0.5,
    tries: Annotated[
        int, typer.Option(min=1, metavar="N", help="How often steps are proposed for one place.")
    ] = 3,
    pick: Annotated[Pick, typer.Option(help="Which of several accepted steps goes on.")] = "best",
    beam: Annotated[
        int, typer.Option(min=1, metavar="N", help="Prefixes that are followed at once.")
    ] = 1,
    lookahead: Annotated[
        int, typer.Option(min=0, metavar="N", help="Steps written behind one before it is judged.")
    ] = 0,
    max_steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most steps of a solution.")
    ] = 32,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    overwrite: options.Overwrite = False,
    limit: options.Limit = None,
    shard: options.ShardPart = None,
    quiet: options.Quiet = False,
    model: options.Model = DEMO,
    profile: options.ProfileName = None,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
    schedule: options.Order = "auto",
    pass_tokens: options.PassTokens = None,
) -> None:
    """Build solutions step by step, keeping the steps that pass."""
    local = LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens)
    steps = options.step_settings("vrprm", None, "all")
    choice = options.ModelChoice(model, profile, steps, schedule, local)
    errors = open_console(sys.stderr)
    with plain_errors(errors), JobProgress(errors, shown=not quiet) as progress:
        rules = SearchSettings(proposals, threshold, tries, pick, beam, lookahead, max_steps)
        settings = _job(tasks, output, overwrite, limit, shard)
        started = time.monotonic()
        total = _Total()
        with OfflineJob(settings, task_row, progress) as job, asyncio.Runner() as runner:
            asked = _policy(
                policy, policy_model, system, temperature, top_p, step_tokens, job.images
            )
            reward = load_process_reward(model, **choice.arguments(job.images))
            job.check()
            kept = job.keep(reward, choice.asker(reward))
            kept_policy = KeptPolicy(asked, job.journal, job.images)

            async def one(row: TaskRow, number: int) -> Found | str:
                at = int.from_bytes(digest([seed, number])[:4])
                return await _searched(row.problem, kept_policy, kept, rules, at)

            with _files(job, output, overwrite) as write:
                for rows in job.pieces("sampling"):
                    runs = [(row, number) for row in rows for number in range(samples)]
                    found = runner.run(all_of(one(row, number) for row, number in runs))
                    for (row, number), result in zip(runs, found, strict=True):
                        images = image_references(
                            row.problem.images, job.source.folder, output / "sft.jsonl"
                        )
                        total.add(result)
                        write(row, number, images, result)
            options.close(reward)
            options.close(asked)
        console = open_console(sys.stdout)
        total.print(console, time.monotonic() - started, job.bad)
        console.print(Text(f"Results are in {one_line(str(output))}"), soft_wrap=True)
        if model in PACKAGED:
            console.print(Text(options.DEMO_NOTE, style="dim"))
        raise typer.Exit(SOME_FAILED if job.bad or total.without else ALL_DONE)


def _job(
    tasks: str, output: Path, overwrite: bool, limit: int | None, shard: str | None
) -> JobSettings:
    """The job whose output is the file of trajectories; the folder is made."""
    if str(output) == STANDARD_STREAM:
        raise InputError("the results are several files, and '-' is none: name a folder for them")
    if output.exists() and not output.is_dir():
        raise InputError(f"{str(output)!r} is a file: choose a folder for the results")
    output.mkdir(parents=True, exist_ok=True)
    target = str(output / "trajectories.jsonl")
    settings = options.job_settings(tasks, target, overwrite, limit, shard)
    return replace(settings, rows_at_once=SEARCHES_AT_ONCE)


def _policy(
    place: str,
    model: str | None,
    system: str | None,
    temperature: float,
    top_p: float,
    step_tokens: int,
    images: ImageSettings,
) -> Policy:
    if place.startswith(("http://", "https://")):
        if model is None:
            raise InputError(f"{place!r} is a server: name its model with --policy-model")
        settings = OpenAIPolicySettings(
            url=place,
            model=model,
            api_key=os.environ.get(POLICY_KEY),
            system=system,
            temperature=temperature,
            top_p=top_p,
            max_tokens=step_tokens,
        )
        return OpenAIPolicy(settings, images)
    module, _, name = place.partition(":")
    try:
        with _folder_on_path(Path.cwd()):
            found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"there is no policy {place!r} ({error}): write the URL of a server, or module:name"
        ) from error
    if callable(found) and not hasattr(found, "propose"):
        found = found()
    if not (hasattr(found, "propose") and hasattr(found, "identity")):
        raise InputError(f"{place!r} is no policy: it needs `identity` and `async def propose`")
    policy: Policy = found
    return policy


@contextlib.contextmanager
def _folder_on_path(folder: Path) -> Iterator[None]:
    """As `python -m` does: modules in the working directory can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


async def _searched(
    problem: Problem, policy: Policy, reward: ProcessReward, rules: SearchSettings, seed: int
) -> Found | str:
    """What was found, or why this one problem cannot be worked on."""
    try:
        return await search(problem, policy, reward, rules, seed=seed)
    except ImageError as error:
        return str(error)
    except ServerRefusedError as error:
        if error.status not in REFUSED_FOR_THE_REQUEST:
            raise
        return str(error)


Write = Callable[[TaskRow, int, Sequence[str], Found | str], None]


@contextlib.contextmanager
def _files(job: OfflineJob[TaskRow], folder: Path, overwrite: bool) -> Iterator[Write]:
    """A function that takes one result to all four files, which appear together at the end."""
    with contextlib.ExitStack() as stack:
        # The first to be opened is the last to appear: where it is, all of them are.
        main = stack.enter_context(job.writing())
        makers = {"sft": conversations, "pairs": step_pairs, "labels": labelled_steps}
        writers: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        for name in makers:
            path = folder / f"{name}.jsonl"
            check_output(path, source=job.source.path, overwrite=job.resumed or overwrite)
            writers[name] = stack.enter_context(atomic_output(path))

        def write(row: TaskRow, number: int, images: Sequence[str], result: Found | str) -> None:
            main(result_record(row, number, images, result))
            if isinstance(result, Found):
                for name, make in makers.items():
                    for record in make(row.problem, images, result):
                        writers[name](record)

        yield write


def result_record(
    row: TaskRow, number: int, images: Sequence[str], result: Found | str
) -> dict[str, Any]:
    """A row of trajectories.jsonl: the solutions of one search, and what they cost."""
    if isinstance(result, str):
        spent, trajectories, error = Spent(), [], result
    else:
        spent, error = result.spent, None
        trajectories = [
            {
                "ended": t.ended,
                "response": t.response,
                "steps": list(t.steps),
                "p_correct": list(t.p_correct),
            }
            for t in result.trajectories
        ]
    return {
        "id": row.id,
        "line": row.line,
        "sample": number,
        "question": row.problem.question,
        "images": list(images),
        "reference_answer": row.problem.reference_answer,
        "error": error,
        "trajectories": trajectories,
        "spent": {
            "policy_tokens": spent.policy_tokens,
            "proposals": spent.proposals,
            "unscored_proposals": spent.unscored,
            "unusable_proposals": spent.unusable,
            "reward": spent.reward.model_dump(),
        },
    }


@dataclass
class _Total:
    """What all searches came to."""

    searches: int = 0
    accepted: int = 0
    without: int = 0
    """Searches that found no solution."""
    failed: int = 0
    pairs: int = 0
    spent: Spent = field(default_factory=Spent)

    def add(self, result: Found | str) -> None:
        self.searches += 1
        if isinstance(result, str):
            self.failed += 1
            self.without += 1
            return
        self.accepted += len(result.accepted)
        self.without += not result.accepted
        self.pairs += sum(len(c.rejected) for c in result.choices if c.accepted)
        self.spent.policy_tokens += result.spent.policy_tokens
        self.spent.proposals += result.spent.proposals
        self.spent.unscored += result.spent.unscored
        self.spent.unusable += result.spent.unusable
        self.spent.reward += result.spent.reward

    def print(self, console: Console, seconds: float, bad: int) -> None:
        spent, kept = self.spent, max(1, self.accepted)
        reward = spent.reward.prompt_tokens + spent.reward.generated_tokens
        lines = [
            f"{self.searches:,} searches: {self.accepted:,} solutions accepted, {self.without:,} "
            f"searches without one ({self.failed:,} could not be asked), {bad:,} bad rows, "
            f"{duration(seconds)}",
            f"{spent.proposals:,} steps proposed, {spent.unscored:,} of them unscored, "
            f"{spent.unusable:,} unusable; {self.pairs:,} step pairs",
            f"Per accepted solution: {spent.policy_tokens / kept:,.0f} policy tokens, "
            f"{reward / kept:,.0f} reward tokens"
            if self.accepted
            else f"{spent.policy_tokens:,} policy tokens, {reward:,} reward tokens",
        ]
        for line in lines:
            console.print(Text(line), soft_wrap=True)
