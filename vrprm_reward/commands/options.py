"""Options that several commands share: the model, the steps, and the rows of a job."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vrprm_reward.connections import proxies_of_the_environment, through_proxy
from vrprm_reward.engines.local.options import DEFAULT_OPTIONS, LocalOptions
from vrprm_reward.errors import InputError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.job import JobSettings, OfflineJob
from vrprm_reward.jobs.keys import checkpoint_fingerprint
from vrprm_reward.jobs.outputs import check_output, json_line
from vrprm_reward.jobs.source import STANDARD_STREAM, Shard
from vrprm_reward.process_reward import PACKAGED, ProcessReward, is_reward_server
from vrprm_reward.report.terminal import open_console
from vrprm_reward.scoring.profile import Profile, builtin_profiles
from vrprm_reward.scoring.schedule import Schedule
from vrprm_reward.steps import StepPart, StepRule, StepSettings

DEMO_NOTE = (
    "Scored by the packaged demo model: it knows only its own world of drawn shapes (see README)."
)

CONNECT_SECONDS = 10.0
"""How long a reward server may take to be connected to before a job begins."""

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def complete_profile(incomplete: str) -> list[str]:
    """Packaged profiles for shell completion."""
    return [name for name in builtin_profiles() if name.startswith(incomplete)]


Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Write the results there, as JSONL or (OUT.parquet) Parquet; - is standard output.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N rows.")]
ShardPart = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only part I of N, with all rows of a problem in one part.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No tables and no progress bar.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="demo|demo_no_think|PATH|ID|URL",
        help="The demo, the folder of a checkpoint, a model id, or the URL of a server.",
        rich_help_panel="Model",
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME|PATH",
        help="How the model is spoken to; by default the model's usual one.",
        autocompletion=complete_profile,
        rich_help_panel="Model",
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …", rich_help_panel="Model")
]
DType = Annotated[
    str,
    typer.Option("--dtype", help="auto, float32, bfloat16 or float16.", rich_help_panel="Model"),
]
Order = Annotated[
    Schedule,
    typer.Option(
        "--schedule", help="Order of the judgements; same scores.", rich_help_panel="Model"
    ),
]
PassTokens = Annotated[
    int | None,
    typer.Option(
        "--pass-tokens",
        min=1,
        metavar="N",
        help="Bound on the tokens of one forward pass.",
        rich_help_panel="Model",
    ),
]
Split = Annotated[
    StepRule,
    typer.Option("--split", help="How a response is cut into steps.", rich_help_panel="Steps"),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator",
        metavar="TEXT",
        help=r"What stands between steps; \n, \t, \r and \\ are understood.",
        rich_help_panel="Steps",
    ),
]
Part = Annotated[
    StepPart,
    typer.Option("--part", help="Which part of a response is judged.", rich_help_panel="Steps"),
]


@dataclass(frozen=True)
class ModelChoice:
    """Which model scores, and how."""

    model: str
    profile: str | Profile | None
    steps: StepSettings
    schedule: Schedule = "auto"
    local: LocalOptions = DEFAULT_OPTIONS

    def arguments(self, images: ImageSettings) -> dict[str, Any]:
        """What `load_process_reward` is given beside the model's name."""
        # Records have the thinking, and so has what is kept, whether or not it is printed.
        asked = {"thinking": True} if is_reward_server(self.model) else {}
        return {
            **asked,
            "profile": self.profile,
            "steps": self.steps,
            "images": images,
            "schedule": self.schedule,
            "local": replace(self.local, cuda_graphs=True),
        }

    def asker(self, reward: ProcessReward) -> str:
        """All that decides a score beside the rollout: checkpoint, profile, steps, numeric type.

        Of a reward server only its URL is known. It is called on here, before anything is scored.

        Raises:
            InputError: there is no server at the URL.
        """
        if is_reward_server(self.model):
            _call_on(self.model)
        profile = getattr(reward, "profile", None)
        words = profile.model_dump_json() if isinstance(profile, Profile) else ""
        folder = str(PACKAGED.get(self.model, self.model))
        fingerprint = checkpoint_fingerprint(folder)
        return "\n".join([fingerprint, words, self.steps.model_dump_json(), self.local.dtype])


def profile_name(reward: ProcessReward) -> str | None:
    """Name of the profile that a reward uses, where it has one."""
    profile = getattr(reward, "profile", None)
    return profile.name if isinstance(profile, Profile) else None


def check_reference_use(reward: ProcessReward, *, wanted: bool) -> None:
    """See that a wish to show reference answers can be fulfilled. Raises `InputError`."""
    if not wanted:
        return
    profile = getattr(reward, "profile", None)
    if not isinstance(profile, Profile):
        raise InputError(
            "a reward server does not say whether its profile shows reference answers: leave "
            "--show-reference out, or score without that server, by --model PATH or openai+http://"
            "HOST:PORT/v1 and a profile with show_reference = true"
        )
    if not profile.show_reference:
        raise InputError(
            f"the profile {profile.name!r} never shows reference answers: leave --show-reference "
            "out, or pass a profile with show_reference = true"
        )


def _call_on(url: str) -> None:
    """See that something answers at a URL. Raises `InputError`."""
    import httpx2

    try:
        with proxies_of_the_environment():
            httpx2.get(f"{url.rstrip('/')}/health", timeout=CONNECT_SECONDS)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise InputError(
            f"no reward server can be reached at {url}{through_proxy(url)} "
            f"({type(error).__name__}: {error}): start it, or correct --model; finished work, if "
            "there is any, is kept"
        ) from error
    except httpx2.TransportError:
        # Something is there; whoever scores tries again, and says in the end what is wrong.
        pass


def close(used: object) -> None:
    """Free a model, end processes or close connections, where there is something to free."""
    close = getattr(used, "close", None)
    if callable(close):
        close()


def job_settings(
    rows: str, output: str | None, overwrite: bool, limit: int | None, shard: str | None
) -> JobSettings:
    """The settings of a job from options of a command line. Raises `InputError`."""
    target = None if output in (None, STANDARD_STREAM) else Path(output or "")
    part = Shard() if shard is None else Shard.parse(shard)
    return JobSettings(rows=rows, output=target, overwrite=overwrite, limit=limit, shard=part)


def check_figures(job: OfflineJob[Any], path: Path | None, option: str, *, overwrite: bool) -> None:
    """See that figures may be written beside the output of a job, before any work is done for it.

    Args:
        job: the job, open.
        path: the file of its figures. None: they are written nowhere.
        option: who asks for them, for messages.
        overwrite: whether a file that exists may be replaced.

    Raises:
        InputError: it is the input or the output, exists already, or is no file in any folder.
    """
    if path is None:
        return
    if str(path) == STANDARD_STREAM:
        raise InputError(f"{option} writes a file, and '-' is none: name one, say figures.json")
    if job.output is not None and _same_file(path, job.output):
        raise InputError(f"{str(path)!r} is --output too: choose another file for {option}")
    check_output(path, source=job.source.path, overwrite=overwrite)


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, which need not exist."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def words_console(output: str | None, quiet: bool, errors: Console) -> Console:
    """Where words for people go: standard output, unless records go there or it is to be quiet."""
    if quiet or output == STANDARD_STREAM:
        return errors
    return open_console(sys.stdout, keep_going=output is not None)


@contextlib.contextmanager
def records(
    job: OfflineJob[Any], output: str | None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that takes one record to the output: a file, standard output, or nowhere."""
    if output == STANDARD_STREAM:
        yield lambda record: typer.echo(json_line(record), nl=False)
    else:
        with job.writing() as write:
            yield write


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
