"""`vrprm-reward doctor`: what is in place, and which frame a checkpoint follows."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from vrprm_reward.commands import options
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import InputError, MissingExtraError
from vrprm_reward.process_reward import DEMO, PACKAGED
from vrprm_reward.report.terminal import ALL_DONE, SOME_FAILED, open_console, plain_errors
from vrprm_reward.scoring.profile import builtin_profiles, load_profile

LONGEST_THINKING = 1024

FRAMEWORKS = ("verl", "openrlhf")


def doctor(
    framework: Annotated[
        str | None,
        typer.Argument(
            metavar="[verl|openrlhf]",
            help="A training framework whose set-up is examined instead of a checkpoint.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With a framework: the composed configuration of a run, as YAML."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="demo|demo_no_think|PATH|ID",
            help="The checkpoint to examine.",
            rich_help_panel="Model",
        ),
    ] = DEMO,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Profiles to try, such as imported ones; all packaged if none.",
            rich_help_panel="Model",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
) -> None:
    """Examine a checkpoint: tokens, templates, context, and which frame it follows.

    Every profile is tried on small samples with known verdicts. Exit status 0: a frame fits;
    1: none does, or something is missing; 2: the checkpoint could not be loaded.

    `vrprm-reward doctor verl --config FILE` shows what verl loads in which of its processes, and
    names settings of a run that verl ignores or that pass the reward manager by.
    `vrprm-reward doctor openrlhf` looks at OpenRLHF's version and methods, the settings, and the
    reward server.
    """
    errors = open_console(sys.stderr)
    console = open_console(sys.stdout)
    with plain_errors(errors):
        if framework is not None:
            ok = _examine_framework(console, framework, config)
            raise typer.Exit(ALL_DONE if ok else SOME_FAILED)
        if config is not None:
            raise InputError("--config is for a framework: vrprm-reward doctor verl --config FILE")
        ok = _examine(console, model, profile or [], LocalOptions(device=device, dtype=dtype))
    raise typer.Exit(ALL_DONE if ok else SOME_FAILED)


def _print_findings(console: Console, findings: Sequence[Any]) -> None:
    """A line for each thing looked at; adapters have findings of their own with the same fields."""
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
        console.print(f"{mark}  {finding.what}: ", end="")
        console.print(finding.detail, markup=False, highlight=False, soft_wrap=True)


def _examine_framework(console: Console, framework: str, config: Path | None) -> bool:
    if framework not in FRAMEWORKS:
        raise InputError(f"{framework!r} is not examined; choose one of {', '.join(FRAMEWORKS)}")
    try:
        # By name: adapters build on this package, not the other way round.
        checks: Any = importlib.import_module(f"vrprm_{framework}.doctor")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{framework} is not usable here ({error}): run this in the environment of the training"
        ) from error
    findings = checks.examine(config)
    _print_findings(console, findings)
    return all(finding.ok for finding in findings)


def _examine(console: Console, model: str, names: Sequence[str], local: LocalOptions) -> bool:
    from vrprm_reward import doctor as checks

    try:
        from vrprm_reward.engines.local.checkpoint import load_checkpoint
        from vrprm_reward.engines.local.engine import LocalEngine
    except ImportError as error:
        raise MissingExtraError(
            f"examining a checkpoint needs torch and transformers ({error}): "
            "pip install 'vrprm-reward[local]'"
        ) from error
    # Those of the packaged checkpoints are others at another resolution, which the checkpoint's own
    # processor sets anyway.
    tried = list(names) or [name for name in builtin_profiles() if name not in PACKAGED]
    profiles = {
        name: checks.without_long_thinking(load_profile(name), LONGEST_THINKING) for name in tried
    }
    checkpoint = load_checkpoint(PACKAGED.get(model, model), device=local.device, dtype=local.dtype)
    own_template = checkpoint.tokenizer.chat_template
    findings = checks.check_checkpoint(
        frozenset(checkpoint.tokenizer.get_added_vocab()),
        checkpoint.context_tokens,
        own_template if isinstance(own_template, str) else None,
        profiles,
    )
    _print_findings(console, findings)
    evidence = checks.try_profiles(
        lambda template: LocalEngine(checkpoint, template=template, options=local), profiles
    )
    table = Table(
        Column("profile", overflow="fold"),
        "scored",
        "form",
        "p(0)+p(1)",
        "confidence",
        "agreement",
        "unscored because",
    )
    for row in evidence:
        table.add_row(
            escape(row.profile),
            f"{row.scored}/{checks.SAMPLES}",
            f"{row.form:.0%}",
            "unknown" if row.mass is None else f"{row.mass:.3f}",
            f"{row.confidence:.2f}",
            f"{row.agreement:.2f}",
            row.reason or "",
        )
    console.print(table)
    best = evidence[0]
    if best.followed:
        given = escape(best.profile)
        console.print(f"It follows [bold]{given}[/]. Pass: --profile {given}", soft_wrap=True)
        equals = [escape(row.profile) for row in evidence[1:] if checks.as_good(row, best)]
        if equals:
            console.print(
                f"As far as {checks.SAMPLES} samples can tell, it follows {', '.join(equals)} "
                "as well."
            )
    else:
        console.print(
            f"It follows none of these; {escape(best.profile)} comes nearest. A published VRPRM "
            "checkpoint wants its own prompts: see `vrprm-reward profile import --help`, and pass "
            "the profiles it writes with --profile."
        )
    return best.followed and all(finding.ok for finding in findings[:3])
