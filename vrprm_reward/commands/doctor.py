"""`vrprm-reward doctor`: what is in place, and which frame a checkpoint follows."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import MissingExtraError
from vrprm_reward.process_reward import DEMO, DEMO_FOLDER
from vrprm_reward.report.terminal import ALL_DONE, SOME_FAILED, open_console, plain_errors
from vrprm_reward.scoring.profile import builtin_profiles, load_profile

LONGEST_THINKING = 1024


def doctor(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(metavar="demo|PATH|ID", help="The checkpoint to examine.")
    ] = DEMO,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Profiles to try, such as imported ones; all packaged if none.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Examine a checkpoint: tokens, templates, context, and which frame it follows.

    Every profile is tried on small samples with known verdicts. Exit status 0: a frame fits;
    1: none does, or something is missing; 2: the checkpoint could not be loaded.
    """
    if context.invoked_subcommand is not None:
        return
    errors = open_console(sys.stderr)
    console = open_console(sys.stdout)
    with plain_errors(errors):
        ok = _examine(console, model, profile or [], LocalOptions(device=device, dtype=dtype))
    raise typer.Exit(ALL_DONE if ok else SOME_FAILED)


def _examine(console: Console, model: str, names: Sequence[str], options: LocalOptions) -> bool:
    from vrprm_reward import doctor as checks

    try:
        from vrprm_reward.engines.local.checkpoint import load_checkpoint
        from vrprm_reward.engines.local.engine import LocalEngine
    except ImportError as error:
        raise MissingExtraError(
            f"examining a checkpoint needs torch and transformers ({error}): "
            "pip install 'vrprm-reward[local]'"
        ) from error
    # `demo` is `two_stage` at another resolution, which the checkpoint's own processor sets anyway.
    tried = list(names) or [name for name in builtin_profiles() if name != "demo"]
    profiles = [
        checks.without_long_thinking(load_profile(name), LONGEST_THINKING) for name in tried
    ]
    checkpoint = load_checkpoint(
        DEMO_FOLDER if model == DEMO else model, device=options.device, dtype=options.dtype
    )
    own_template = checkpoint.tokenizer.chat_template
    engine = LocalEngine(checkpoint, template=profiles[0].conversation, options=options)
    findings = checks.check_checkpoint(
        engine.added_tokens,
        checkpoint.context_tokens,
        own_template if isinstance(own_template, str) else None,
        profiles[0],
    )
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
        console.print(f"{mark}  {finding.what}: ", end="")
        console.print(finding.detail, markup=False, highlight=False, soft_wrap=True)
    evidence = checks.try_profiles(engine, profiles)
    engine.close()
    table = Table(
        "profile", "scored", "form", "p(0)+p(1)", "confidence", "agreement", "unscored because"
    )
    for row in evidence:
        table.add_row(
            row.profile,
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
        given = next(n for n, p in zip(tried, profiles, strict=True) if p.name == best.profile)
        console.print(f"It follows [bold]{best.profile}[/]. Pass: --profile {given}")
    else:
        console.print(
            f"It follows none of these; {best.profile} comes nearest. A published VRPRM "
            "checkpoint wants its own prompts: see `vrprm-reward profile import --help`, and pass "
            "the profiles it writes with --profile."
        )
    return best.followed and all(finding.ok for finding in findings[:3])
