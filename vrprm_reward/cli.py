"""The command line: every command, mounted. What a command does stands in `commands/`, and in
the `commands.py` of an adapter.

Nothing heavy is imported here, so that `--help` and shell completion answer at once.
"""

from typing import Annotated

import typer

from vrprm_openrlhf import commands as openrlhf
from vrprm_reward.commands import best_of_n, doctor, evaluate, profile, report, sample, score, serve
from vrprm_reward.version import VERSION

app = typer.Typer(
    name="vrprm-reward",
    help="Visual process rewards: how likely each step of a solution is correct, given the images.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("score", help=score.HELP, epilog=score.EPILOG)(score.score)
app.command("best-of-n", help=best_of_n.HELP, epilog=best_of_n.EPILOG)(best_of_n.best_of_n)
app.command("sample", help=sample.HELP, epilog=sample.EPILOG)(sample.sample)
app.add_typer(evaluate.app, name="evaluate")
app.command("report", epilog=report.EPILOG)(report.report)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.add_typer(profile.app, name="profile")
app.command("chat-template")(profile.chat_template)
app.add_typer(openrlhf.app)
app.command("openrlhf-data", help=openrlhf.DATA_HELP, epilog=openrlhf.DATA_EPILOG)(
    openrlhf.openrlhf_data
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vrprm-reward {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Visual process rewards: how likely each step of a solution is correct, given the images."""


if __name__ == "__main__":
    app()
