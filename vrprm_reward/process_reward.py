"""The interface every part of this package shares, and how to get one by name."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from vrprm_reward.engines.local.options import DEFAULT_OPTIONS, LocalOptions
from vrprm_reward.engines.openai.options import DEFAULT_OPENAI_OPTIONS, OpenAIOptions
from vrprm_reward.errors import InputError, MissingExtraError
from vrprm_reward.images import ImageSettings
from vrprm_reward.scoring.profile import Profile, builtin_profiles, load_profile
from vrprm_reward.scoring.schedule import Schedule
from vrprm_reward.scoring.template import render_template
from vrprm_reward.steps import Splitter, StepSettings
from vrprm_reward.types import ProcessScore, Rollout

if TYPE_CHECKING:
    from vrprm_reward.engines.engine import Engine

DEMO, DEMO_NO_THINK = "demo", "demo_no_think"
_log = logging.getLogger(__name__)
_OPENAI_SCHEMES = ("openai+http://", "openai+https://")
DEMO_FOLDER = Path(__file__).parent / "demo" / "checkpoint"
PACKAGED: Mapping[str, Path] = MappingProxyType(
    {DEMO: DEMO_FOLDER, DEMO_NO_THINK: DEMO_FOLDER.with_name("checkpoint_no_think")}
)
"""Folders of the packaged checkpoints, by the name of each and of its profile."""


class ProcessReward(Protocol):
    """Anything that scores the steps of rollouts."""

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts. Callable inside a running event loop."""
        ...

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts."""
        ...


class LoadedReward(ProcessReward, Protocol):
    """A process reward that holds something: a model, or connections.

    `contextlib.closing` closes it at the end of a `with` block.
    """

    def close(self) -> None:
        """Free what is held."""
        ...


def load_process_reward(
    name: str | Path = DEMO,
    *,
    profile: str | Path | Profile | None = None,
    steps: StepSettings | Splitter = StepSettings(),  # noqa: B008  frozen
    images: ImageSettings = ImageSettings(),  # noqa: B008  frozen
    schedule: Schedule = "auto",
    keep_scores: int = 0,
    local: LocalOptions = DEFAULT_OPTIONS,
    openai: OpenAIOptions = DEFAULT_OPENAI_OPTIONS,
    thinking: bool = False,
) -> LoadedReward:
    """A process reward by name.

    Args:
        name: `demo` for the packaged demo checkpoint (`demo_no_think` for the one that judges at
            once), the folder of a checkpoint, a model id, or
            `openai+http://host:port/v1[,http://...]` for one or more vLLM or SGLang servers,
            or `http://host:port` for a `vrprm-reward serve`.
        profile: name or path of a profile, or one already loaded. None: that of the same name for
            a packaged checkpoint, else `two_stage`.
        steps: how responses are divided into steps.
        images: limits on images.
        schedule: order of the judgements; `auto` lets the engine choose. With
            `LocalOptions(deterministic=True)` it is lockstep in any case.
        keep_scores: how many finished scores are kept for rollouts that come again.
        openai: options of the engine that asks OpenAI-compatible servers.
        local: options of the in-process engine (`vrprm_reward.engines.local.options`).
        thinking: whether a `vrprm-reward serve` is asked for what the model wrote before it judged;
            models that are spoken to from here always give it.

    Returns:
        An object whose model is loaded on first use (or by asking for its `engine`).

    Raises:
        InputError: the name is no place that is known, or it is that of a server and something is
            given that the server settles itself.
        ProfileError: the profile cannot be used.
        MissingExtraError: torch or transformers is not installed.
    """
    place = str(name)
    if is_reward_server(place):
        _check_remote(place, profile, steps, schedule, local)
        from vrprm_reward.client import RemoteProcessReward

        return RemoteProcessReward(place, images=images, thinking=thinking)
    over_http = place.startswith(_OPENAI_SCHEMES)
    if over_http and _asks_for_something(local):
        raise InputError(
            f"{place!r} has its model elsewhere: leave device, dtype and pass tokens out, and set "
            "them where that server is started"
        )
    if "://" in place and not over_http:
        raise InputError(
            f"{place!r} is no server this version speaks to; pass 'http://host:port' (vrprm-reward "
            "serve), 'openai+http://host:port/v1', 'demo', 'demo_no_think', a checkpoint folder or "
            "a model id"
        )
    if profile is None:
        profile = place if place in PACKAGED else "two_stage"
    # A server does not say which checkpoint it has; who names the demo's profile serves the demo.
    named_so = isinstance(profile, str) and profile in PACKAGED
    is_demo = place in PACKAGED or (over_http and named_so)
    if not is_demo and profile in builtin_profiles():
        _warn_of_packaged_wording(place, str(profile))
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    if place in PACKAGED and (chosen.think is None) != (place == DEMO_NO_THINK):
        _warn_of_thinking(place, chosen.name)
    from vrprm_reward.scoring.scorer import VRPRMScorer

    make_engine: Callable[[], Engine]
    if over_http:
        urls = tuple(place.removeprefix("openai+").split(","))
        make_engine = partial(_make_openai_engine, urls, profile=chosen, options=openai)
    else:
        folder = str(PACKAGED.get(place, place))
        template = chosen.conversation
        make_engine = partial(_make_local_engine, folder, template=template, options=local)
    return VRPRMScorer(
        make_engine, chosen, steps=steps, images=images, schedule=schedule, keep_scores=keep_scores
    )


@functools.cache
def _warn_of_thinking(checkpoint: str, profile: str) -> None:
    """Once for each checkpoint and profile: it was taught one thing and is asked for the other."""
    thinks, other = "after thinking", DEMO_NO_THINK
    if checkpoint == DEMO_NO_THINK:
        thinks, other = "at once", DEMO
    _log.warning(
        "%r was taught to judge %s, and the profile %r asks for something else: its scores will "
        "say little; use %r with it",
        checkpoint,
        thinks,
        profile,
        other,
    )


@functools.cache
def _warn_of_packaged_wording(checkpoint: str, profile: str) -> None:
    """Once for each checkpoint and profile: scores under other words than trained on are worse."""
    _log.warning(
        "%s is scored under the packaged profile %r, whose wording is this project's own. A "
        "published VRPRM checkpoint was trained on other prompts: get them with "
        "`vrprm-reward profile import PATH_TO_A_VRPRM_CHECKOUT` and pass the profile it writes",
        checkpoint,
        profile,
    )


def is_reward_server(name: str) -> bool:
    """Whether `load_process_reward` takes a name for the URL of a `vrprm-reward serve`."""
    return name.startswith(("http://", "https://"))


def _check_remote(
    url: str,
    profile: object,
    steps: StepSettings | Splitter,
    schedule: Schedule,
    local: LocalOptions,
) -> None:
    """See that nothing is asked for that a server has settled itself. Raises `InputError`."""
    if profile is not None or steps != StepSettings():
        raise InputError(
            f"{url!r} is a reward server: it has its own profile and its own way to divide "
            "responses; leave profile and steps out, and set them where the server is started"
        )
    if schedule != "auto" or _asks_for_something(local):
        raise InputError(
            f"{url!r} is a reward server: device, dtype, schedule and pass tokens are those of its "
            "model; leave them out, and set them where the server is started"
        )


def _asks_for_something(local: LocalOptions) -> bool:
    # The commands record passes wherever there is a GPU, and nobody asked them to.
    return replace(local, cuda_graphs=False) != DEFAULT_OPTIONS


def _make_local_engine(name: str, *, template: str, options: LocalOptions) -> "Engine":
    try:
        from vrprm_reward.engines.local.engine import LocalEngine
    except ImportError as error:
        raise MissingExtraError(
            f"scoring in this process needs torch and transformers ({error}): "
            "pip install 'vrprm-reward[local]'"
        ) from error
    return LocalEngine.load(name, template=template, options=options)


def _make_openai_engine(
    urls: Sequence[str], *, profile: Profile, options: OpenAIOptions
) -> "Engine":
    from vrprm_reward.engines.openai.engine import OpenAIEngine

    think = profile.think
    engine = OpenAIEngine(
        urls,
        render=partial(render_template, profile.conversation),
        thinking=(think.opening, think.closing) if think else ("<think>", "</think>"),
        options=options,
    )
    try:
        engine.connect()
    except BaseException:
        engine.close()
        raise
    return engine
