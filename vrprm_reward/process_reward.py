"""The interface every part of this package shares, and how to get one by name."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vrprm_reward.engines.local.options import DEFAULT_OPTIONS, LocalOptions
from vrprm_reward.errors import InputError, MissingExtraError
from vrprm_reward.images import ImageSettings
from vrprm_reward.scoring.profile import Profile, load_profile
from vrprm_reward.scoring.schedule import Schedule
from vrprm_reward.steps import Splitter, StepSettings
from vrprm_reward.types import ProcessScore, Rollout

if TYPE_CHECKING:
    from vrprm_reward.engines.engine import Engine

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo" / "checkpoint"


class ProcessReward(Protocol):
    """Anything that scores the steps of rollouts."""

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts. Callable inside a running event loop."""
        ...

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts."""
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
) -> ProcessReward:
    """A process reward by name.

    Args:
        name: `demo` for the packaged demo checkpoint, the folder of a checkpoint, or a model id.
        profile: name or path of a profile, or one already loaded. None: `demo` for the demo
            checkpoint, else `two_stage`.
        steps: how responses are divided into steps.
        images: limits on images.
        schedule: order of the judgements; `auto` lets the engine choose.
        keep_scores: how many finished scores are kept for rollouts that come again.
        local: options of the in-process engine (`vrprm_reward.engines.local.options`).

    Returns:
        An object whose model is loaded on first use (or by asking for its `engine`).

    Raises:
        ProfileError: the profile cannot be used.
        MissingExtraError: torch or transformers is not installed.
    """
    place = str(name)
    if "://" in place:
        raise InputError(
            f"{place!r}: servers are not supported by this version; pass 'demo', a checkpoint "
            "folder or a model id"
        )
    if profile is None:
        profile = "demo" if place == DEMO else "two_stage"
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    from vrprm_reward.scoring.scorer import VRPRMScorer

    make_engine = partial(
        _make_local_engine,
        str(DEMO_FOLDER) if place == DEMO else place,
        template=chosen.conversation,
        options=local,
    )
    return VRPRMScorer(
        make_engine, chosen, steps=steps, images=images, schedule=schedule, keep_scores=keep_scores
    )


def _make_local_engine(name: str, *, template: str, options: LocalOptions) -> "Engine":
    try:
        from vrprm_reward.engines.local.engine import LocalEngine
    except ImportError as error:
        raise MissingExtraError(
            f"scoring in this process needs torch and transformers ({error}): "
            "pip install 'vrprm-reward[local]'"
        ) from error
    return LocalEngine.load(name, template=template, options=options)
