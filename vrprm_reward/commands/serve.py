"""`vrprm-reward serve`: the HTTP reward server."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import SecretStr, ValidationError

from vrprm_reward.commands import options
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.engines.openai.options import DEFAULT_OPENAI_OPTIONS, OpenAIOptions
from vrprm_reward.engines.openai.urls import parse_urls
from vrprm_reward.errors import InputError, MissingExtraError
from vrprm_reward.images import ImageSettings
from vrprm_reward.process_reward import DEMO, load_process_reward
from vrprm_reward.report.terminal import open_console, plain_errors
from vrprm_reward.server.settings import MIB, ServerSettings

_DEFAULTS = ServerSettings()
_count = partial(typer.Option, min=1, metavar="N", rich_help_panel="Limits")
_seconds = partial(typer.Option, metavar="S", rich_help_panel="Limits")
_OPTIONS = {
    "tokens": "--token or --token-file",
    "unscored_reward": "--unscored-reward",
    "score_seconds": "--score-seconds",
    "drain_seconds": "--drain-seconds",
    "upstream_seconds": "--upstream-seconds",
}


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="demo|demo_no_think|PATH|ID",
            help="The demo, the folder of a checkpoint, or a model id.",
            show_default=DEMO,
            rich_help_panel="Model",
        ),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL[,URL]",
            help="Instead of --model: score through these vLLM or SGLang servers of one model.",
            rich_help_panel="Model",
        ),
    ] = None,
    upstream_model: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Name of the model at --upstream; auto: the first that is listed.",
            rich_help_panel="Model",
        ),
    ] = DEFAULT_OPENAI_OPTIONS.model,
    upstream_key: Annotated[
        str | None,
        typer.Option(
            envvar="VRPRM_UPSTREAM_KEY",
            metavar="KEY",
            help="API key of --upstream. Others see command lines: prefer the variable.",
            rich_help_panel="Model",
        ),
    ] = None,
    upstream_in_flight: Annotated[
        int, _count(help="Most requests at one --upstream server at one time.")
    ] = DEFAULT_OPENAI_OPTIONS.max_in_flight,
    upstream_seconds: Annotated[
        float,
        _seconds(
            help="How long to wait at the start for --upstream servers that do not answer yet."
        ),
    ] = _DEFAULTS.upstream_seconds,
    profile: options.ProfileName = None,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
    schedule: options.Order = "auto",
    pass_tokens: options.PassTokens = None,
    keep_scores: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Finished scores kept for rollouts that come again.",
            rich_help_panel="Model",
        ),
    ] = 0,
    split: options.Split = "vrprm",
    separator: options.Separator = None,
    part: options.Part = "all",
    host: Annotated[str, typer.Option(help="Name or address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free one.")] = 8000,
    unscored_reward: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Turns /get_reward on: the reward of a rollout that could not be scored.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="VRPRM_TOKEN",
            metavar="TOKEN",
            help="A bearer token. Others see command lines: prefer the variable or a file.",
            rich_help_panel="Security",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Bearer tokens, one a line; any of them opens.",
            rich_help_panel="Security",
        ),
    ] = None,
    allow_folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Read images by path from here; may be repeated.",
            rich_help_panel="Security",
        ),
    ] = None,
    allow_url_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Fetch images by URL from this exact host; may be repeated.",
            rich_help_panel="Security",
        ),
    ] = None,
    max_body_mb: Annotated[
        int, _count(help="Largest body of a request, in MiB.")
    ] = _DEFAULTS.max_body_bytes // MIB,
    max_batch: Annotated[int, _count(help="Most rollouts in one request.")] = _DEFAULTS.max_batch,
    max_images: Annotated[
        int, _count(help="Most images of one rollout.")
    ] = _DEFAULTS.images.max_images,
    queue: Annotated[
        int, _count(help="Requests to /v1/score inside at one time; beyond: 503.")
    ] = _DEFAULTS.queue,
    reward_queue: Annotated[
        int, _count(help="Requests to /get_reward inside at one time; beyond they wait.")
    ] = _DEFAULTS.reward_queue,
    max_running: Annotated[
        int, _count(help="Rollouts with the model at one time.")
    ] = _DEFAULTS.max_running,
    score_seconds: Annotated[
        float, _seconds(help="Longest time of a request to /v1/score; then 504.")
    ] = _DEFAULTS.score_seconds,
    drain_seconds: Annotated[
        float, _seconds(help="Longest time to finish after SIGTERM.")
    ] = _DEFAULTS.drain_seconds,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="What is logged.")
    ] = "info",
) -> None:
    """Serve scores over HTTP: /v1/score, /get_reward (OpenRLHF), /health, /ready, /metrics.

    Ends on SIGTERM with status 0 when everything that was let in is answered, 1 when something
    had to be given up; 2: it could not start.
    """
    steps = options.step_settings(split, separator, part)
    with plain_errors(open_console(sys.stderr)):
        local = LocalOptions(device=device, dtype=dtype, pass_tokens=pass_tokens)
        openai = OpenAIOptions(
            model=upstream_model, api_key=upstream_key, max_in_flight=upstream_in_flight
        )
        settings = _settings(
            tokens=_tokens(token, token_file),
            unscored_reward=unscored_reward,
            images=_image_settings(allow_folder or [], allow_url_host or [], max_images),
            max_body_bytes=max_body_mb * MIB,
            max_batch=max_batch,
            queue=queue,
            reward_queue=reward_queue,
            max_running=max_running,
            score_seconds=score_seconds,
            drain_seconds=drain_seconds,
            upstream_seconds=upstream_seconds,
        )
        reward = load_process_reward(
            _place(
                model,
                upstream,
                local,
                openai,
                waits=upstream_seconds != _DEFAULTS.upstream_seconds,
            ),
            profile=profile,
            steps=steps,
            images=settings.images,
            schedule=schedule,
            keep_scores=keep_scores,
            local=replace(local, cuda_graphs=True),
            openai=openai,
        )
        try:
            from vrprm_reward.server.run import run_server
        except ImportError as error:
            raise MissingExtraError(
                f"serving needs fastapi, uvicorn and prometheus-client ({error}): "
                "pip install 'vrprm-reward[server]'"
            ) from error
        status = run_server(reward, settings, host=host, port=port, log_level=log_level)
    raise typer.Exit(status)


def _place(
    model: str | None,
    upstream: str | None,
    local: LocalOptions,
    openai: OpenAIOptions,
    *,
    waits: bool,
) -> str:
    """The name under which `load_process_reward` finds what scores."""
    if upstream is None:
        # The key may come from the environment, where it stands for other programs too.
        if waits or replace(openai, api_key=None) != DEFAULT_OPENAI_OPTIONS:
            raise InputError("--upstream-… options change nothing without --upstream")
        return model or DEMO
    if model is not None:
        raise InputError(
            f"--model {model!r} and --upstream exclude one another: the model is the one that "
            "those servers serve (--upstream-model names it)"
        )
    if local != LocalOptions():
        raise InputError(
            "--device, --dtype and --pass-tokens are for a model in this process: set them where "
            "the --upstream servers are started"
        )
    return "openai+" + ",".join(parse_urls(upstream.split(",")))


def _settings(**values: object) -> ServerSettings:
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        # The values stay out of the message: one of them may be a token.
        raise InputError(
            "; ".join(
                f"{_OPTIONS.get(str(each['loc'][0]), str(each['loc'][0]))}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            )
        ) from None


def _tokens(token: str | None, file: Path | None) -> list[SecretStr]:
    texts = [] if token is None else [token.strip()]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token-file {str(file)!r} cannot be read ({error})") from error
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise InputError(f"--token-file {str(file)!r} holds no token: write one a line")
        texts += found
    return [SecretStr(text) for text in texts]


def _image_settings(folders: list[Path], hosts: list[str], max_images: int) -> ImageSettings:
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"--allow-folder {str(folder)!r} is not a folder")
    try:
        return ImageSettings(
            max_images=max_images,
            allow_paths=bool(folders),
            allowed_folders=tuple(folder.resolve() for folder in folders),
            allow_urls=bool(hosts),
            url_hosts=tuple(hosts),
        )
    except ValidationError as error:
        raise InputError(f"--allow-url-host: {error.errors()[0]['msg']}") from None
