"""`vrprm-reward profile show | import | validate`, and `vrprm-reward chat-template`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vrprm_reward.errors import InputError
from vrprm_reward.jobs.source import STANDARD_STREAM
from vrprm_reward.report.table import one_line
from vrprm_reward.report.terminal import (
    ALL_DONE,
    SOME_FAILED,
    complain,
    open_console,
    plain_errors,
)
from vrprm_reward.scoring.check import profile_notes, profile_problems, sample_prompts
from vrprm_reward.scoring.official.importer import ImportReport, Written, import_profiles
from vrprm_reward.scoring.profile import builtin_profiles, load_profile
from vrprm_reward.scoring.toml_text import profile_toml

IMPORT_FOLDER = "vrprm-profiles"
"""Where an import writes unless it is told otherwise."""

app = typer.Typer(
    name="profile",
    help="Profiles: how a checkpoint is spoken to.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def _complete(incomplete: str) -> list[str]:
    return [name for name in builtin_profiles() if name.startswith(incomplete)]


_Source = Annotated[
    str,
    typer.Argument(
        metavar="NAME|PATH",
        help="A packaged profile or a TOML file.",
        autocompletion=_complete,
        show_default=False,
    ),
]


@app.command()
def show(source: _Source) -> None:
    """Print a profile with all its keys, as TOML to copy and edit."""
    with plain_errors(open_console(sys.stderr)):
        typer.echo(profile_toml(load_profile(source)), nl=False)


_VALIDATE_EPILOG = """\
[bold]Exit status[/]

0  the profile can be used
1  it can be loaded, but has the problems listed
2  it cannot be loaded: no such file, not TOML, or a key that does not fit
"""


@app.command(epilog=_VALIDATE_EPILOG)
def validate(source: _Source) -> None:
    """Check a profile without a model: its keys, every request of its frame, its template."""
    errors = open_console(sys.stderr)
    with plain_errors(errors):
        profile = load_profile(source)
        problems = profile_problems(profile)
        for problem in problems:
            complain(errors, "problem", problem)
        for note in profile_notes(profile):
            complain(errors, "note", note, style="yellow")
        if problems:
            raise typer.Exit(SOME_FAILED)
        kinds = len(sample_prompts(profile))
        typer.echo(
            one_line(f"{profile.name}: fine (frame {profile.frame}, {kinds} requests tried)")
        )
        raise typer.Exit(ALL_DONE)


_IMPORT_HELP = """\
Write profiles with the VRPRM project's own prompts, found in your checkout of it.

Nothing is executed: Python files are parsed, and texts are known by their length and hash. Says \
what was found where, what is missing, and which profiles were written.
"""

_IMPORT_EPILOG = """\
[bold]Exit status[/]

0  all profiles were written
1  some were written; the texts of the others are missing
2  none was written
"""


@app.command(name="import", help=_IMPORT_HELP, epilog=_IMPORT_EPILOG)
def import_(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder of the checkout.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the profiles.")
    ] = Path(IMPORT_FOLDER),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace profiles that exist and differ.")
    ] = False,
) -> None:
    """Find the prompts, write the profiles, report."""
    errors = open_console(sys.stderr)
    with plain_errors(errors):
        report = import_profiles(path)
        _print_findings(report)
        for name, why in report.findings.skipped.items():
            complain(errors, "skipped", f"{name} {why}", style="yellow")
        if not report.profiles:
            raise InputError(
                f"no profile can be written: {str(path)!r} has {len(report.found)} of the "
                f"{len(report.found) + len(report.missing)} known texts in {report.findings.files} "
                "Python and template files"
            )
        _check_targets(report.profiles, output, overwrite=overwrite)
        output.mkdir(parents=True, exist_ok=True)
        for written in report.profiles:
            target = output / written.file_name
            target.write_bytes(written.text.encode())
            typer.echo(one_line(f"wrote {target}"))
        for name, why in report.left_out.items():
            typer.echo(one_line(f"left out {name}: {why}"))
        raise typer.Exit(SOME_FAILED if report.left_out else ALL_DONE)


def _print_findings(report: ImportReport) -> None:
    for constant in report.found:
        first, *others = report.findings.places[constant.name]
        more = f" and {len(others)} more" if others else ""
        typer.echo(one_line(f"found {constant.name}: {first}{more}"))
    for constant in report.missing:
        identity = f"{constant.chars} characters, sha256 {constant.sha256}…"
        needed = "" if constant.name in report.blocking else " (not needed)"
        typer.echo(one_line(f"missing {constant.name}: {constant.what}; {identity}{needed}"))


def _check_targets(profiles: tuple[Written, ...], folder: Path, *, overwrite: bool) -> None:
    if str(folder) == STANDARD_STREAM:
        raise InputError("profiles are several files, and '-' is none: pass a folder with --output")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file: pass a folder with --output")
    for written in profiles:
        target = folder / written.file_name
        if not overwrite:
            _check_same(target, written.text)


def _check_same(target: Path, text: str) -> None:
    """See that nothing is lost when a text is written to a file. Raises `InputError`."""
    if target.exists() and not (target.is_file() and target.read_bytes() == text.encode()):
        raise InputError(
            f"{str(target)!r} exists and differs: pass --overwrite to replace it, or another place "
            "with --output"
        )


def chat_template(
    profile: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="A packaged profile or a TOML file.",
            autocompletion=_complete,
        ),
    ] = "two_stage",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the template there; - is standard output."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that says something else.")
    ] = False,
) -> None:
    """Print a profile's conversation template, for a server's --chat-template."""
    with plain_errors(open_console(sys.stderr)):
        template = load_profile(profile).conversation
        template += "" if template.endswith("\n") else "\n"
        if output is None or str(output) == STANDARD_STREAM:
            typer.echo(template, nl=False)
            return
        if profile not in builtin_profiles() and output.exists() and output.samefile(profile):
            raise InputError(f"{str(output)!r} is the profile: choose another place with --output")
        if not overwrite:
            _check_same(output, template)
        output.write_bytes(template.encode())
