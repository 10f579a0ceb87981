"""`vrprm-reward evaluate robustness`: how far attacks move the scores of a reward model."""

import base64
import contextlib
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from vrprm_reward.commands import options
from vrprm_reward.demo import world
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.evaluation.robustness import (
    Attacked,
    OtherImages,
    Robustness,
    attacked_by,
    original_of,
    profile_under_attack,
    to_score,
    without_neutralising,
)
from vrprm_reward.evaluation.robustness_attacks import ATTACKS
from vrprm_reward.evaluation.robustness_edits import Attack
from vrprm_reward.jobs.job import OfflineJob
from vrprm_reward.jobs.outputs import json_line, score_record, write_whole
from vrprm_reward.jobs.rows import Row, rollout_row
from vrprm_reward.process_reward import DEMO, PACKAGED, ProcessReward, load_process_reward
from vrprm_reward.report.progress import JobProgress
from vrprm_reward.report.robustness import print_robustness
from vrprm_reward.report.table import duration, one_line
from vrprm_reward.report.terminal import ALL_DONE, SOME_FAILED, open_console, plain_errors
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.steps import StepSettings
from vrprm_reward.types import ProcessScore, Rollout

SAMPLES = 40
"""Rollouts of the demo world, where no file is given."""

SAMPLE_SEED = 20_000_033
"""Training of the demo uses small seeds."""

ROWS_AT_ONCE = 4
"""Each row is scored once for every attack."""

EPILOG = """\
[bold]Examples[/]

[cyan]  vrprm-reward evaluate robustness[/]  (the demo model on rollouts of the demo world)
[cyan]  vrprm-reward evaluate robustness rollouts.jsonl --model ./vrprm-4b --metrics figures.json[/]
[cyan]  … --attack forged_verdict --attack image_swapped -o edited.jsonl[/]

[bold]Exit status[/]

0  every rollout was scored before the attacks; how they fared is in the report
1  some rows are bad, or unscored before any attack
2  nothing was done: wrong usage, no usable row, or no model
"""


def complete_attack(incomplete: str) -> list[str]:
    """Names of attacks for shell completion."""
    return [name for name in ATTACKS if name.startswith(incomplete)]


def robustness(
    rollouts: Annotated[
        str | None,
        typer.Argument(
            metavar="[ROLLOUTS]",
            help="Honest rollouts, rows as for score; left out: rollouts of the demo world.",
            show_default=False,
        ),
    ] = None,
    output: options.Output = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="OUT.json", help="Write all figures there.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Make only this attack; may be repeated.",
            autocompletion=complete_attack,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many rollouts of the demo world.")
    ] = SAMPLES,
    seed: Annotated[int, typer.Option(metavar="N", help="Which rollouts of it.")] = SAMPLE_SEED,
    overwrite: options.Overwrite = False,
    limit: options.Limit = None,
    quiet: options.Quiet = False,
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
    """Attack a reward model with edits that a policy may learn, and measure what they gain.

    Edits that leave what steps say as it was must not raise scores; edits that make steps wrong
    must lower them. Forged markup is also scored without being neutralised, which no other
    command does.
    """
    attacks = [_attack(name) for name in dict.fromkeys(attack or ATTACKS)]
    steps = options.step_settings(split, separator, part)
    local = LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens)
    choice = options.ModelChoice(model, profile, steps, schedule, local)
    errors = open_console(sys.stderr)
    with (
        plain_errors(errors),
        JobProgress(errors, shown=not quiet) as progress,
        _rows(rollouts, samples, seed) as rows,
    ):
        settings = options.job_settings(rows, output, overwrite, limit, shard=None)
        settings = replace(settings, rows_at_once=ROWS_AT_ONCE)
        started = time.monotonic()
        others = OtherImages()
        with OfflineJob(settings, rollout_row, progress) as job:
            options.check_figures(job, metrics, "--metrics", overwrite=overwrite)
            job.check(lambda row: others.add(row.rollout.problem))
            reward = load_process_reward(model, **choice.arguments(job.images))
            suite = Suite(attacks, profile_under_attack(reward), steps, others)
            asker = choice.asker(reward)
            as_written = _as_written(reward, suite)
            with options.records(job, output) as write:
                to_record = _recorder(job, model, options.profile_name(reward), write)
                found = suite.run(job, reward, asker, to_record, neutralised=True)
                bare = None
                if as_written is not None:
                    asker += "\nwithout neutralising"
                    bare = suite.forging.run(job, as_written, asker, to_record, neutralised=False)
            options.close(reward)
        figures = {
            "neutralised": found.figures(),
            "as_written": None if bare is None else bare.figures(),
            "model": model,
            "profile": options.profile_name(reward),
        }
        if metrics is not None:
            write_whole(metrics, json.dumps(figures, indent=2, allow_nan=False) + "\n")
        console = options.words_console(output, quiet, errors)
        if not quiet:
            print_robustness(console, found, bare)
        seconds = duration(time.monotonic() - started)
        unscored = ", ".join(f"{n} {reason}" for reason, n in found.unscored.most_common())
        said = f"{found.rollouts} rollouts, {len(attacks)} attacks, {seconds}"
        console.print(Text(said + (f"; unscored: {unscored}" if unscored else "")))
        if settings.output is not None:
            console.print(Text(f"Scores are in {one_line(str(output))}"), soft_wrap=True)
        if model in PACKAGED:
            console.print(Text(options.DEMO_NOTE, style="dim"))
        raise typer.Exit(SOME_FAILED if found.unscored or job.bad else ALL_DONE)


def _attack(name: str) -> Attack:
    if name not in ATTACKS:
        raise typer.BadParameter(
            f"no attack {name!r}; choose of {', '.join(ATTACKS)}", param_hint="--attack"
        )
    return ATTACKS[name]


def _as_written(reward: ProcessReward, suite: "Suite") -> ProcessReward | None:
    return without_neutralising(reward) if suite.forging.attacks else None


@contextlib.contextmanager
def _rows(rollouts: str | None, samples: int, seed: int) -> Iterator[str]:
    """The file of rows: the one given, or one with samples of the demo world."""
    if rollouts is not None:
        yield rollouts
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "demo-world.jsonl")
        rng = random.Random(seed)
        path.write_bytes(b"".join(_sample(rng) for _ in range(samples)))
        yield str(path)


def _sample(rng: random.Random) -> bytes:
    example = world.random_example(rng)
    picture = io.BytesIO()
    example.image.save(picture, format="PNG")
    coded = base64.b64encode(picture.getvalue()).decode()
    return json_line(
        {
            "question": example.question,
            "images": [f"data:image/png;base64,{coded}"],
            "steps": [step.text for step in example.steps],
        }
    )


ToRecord = Callable[[Row, str, Rollout, ProcessScore, bool], None]


@dataclass(frozen=True)
class Suite:
    """The attacks on rows of a job."""

    attacks: list[Attack]
    profile: Profile
    steps: StepSettings
    others: OtherImages

    @property
    def forging(self) -> "Suite":
        """Of the attacks only those for which neutralising matters."""
        return replace(self, attacks=[attack for attack in self.attacks if attack.forges])

    def run(
        self,
        job: OfflineJob[Row],
        reward: ProcessReward,
        asker: str,
        to_record: ToRecord,
        *,
        neutralised: bool,
    ) -> Robustness:
        """Attack with every row of the job, and hand every score to `to_record`."""
        found = Robustness(self.attacks)
        kept = job.keep(reward, asker)
        what = "attacking" if neutralised else "attacking without neutralising"
        for piece in job.scored(what, kept, lambda row: to_score(*self._made(row))):
            for row, scores in piece:
                original, made = self._made(row)
                found.add(made, scores)
                names = ["original", *(m.attack.name for m in made if m.rollout is not None)]
                shown = to_score(original, made)
                for name, rollout, score in zip(names, shown, scores, strict=True):
                    to_record(row, name, rollout, score, neutralised)
        return found

    def _made(self, row: Row) -> tuple[Rollout, list[Attacked]]:
        original = original_of(row.rollout, self.steps)
        others = self.others.instead_of(original.problem)
        return original, attacked_by(self.attacks, original, self.profile, others)


def _recorder(
    job: OfflineJob[Row],
    model: str,
    profile: str | None,
    write: Callable[[Mapping[str, Any]], None],
) -> ToRecord:
    def record(
        row: Row, name: str, rollout: Rollout, score: ProcessScore, neutralised: bool
    ) -> None:
        label = f"{row.id}: {name}" + ("" if neutralised else ", as written")
        values = score_record(
            Row(row.line, label, rollout),
            score,
            model=model,
            profile=profile,
            root=job.source.folder,
            output=job.output,
        )
        write({**values, "row": row.id, "attack": name, "neutralised": neutralised})

    return record
