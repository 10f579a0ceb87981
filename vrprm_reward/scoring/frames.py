"""Frames: where in a conversation the thinking and the verdicts stand.

A frame is two functions. `think` is the request whose answer is generated once; `judge` is the
prompt whose next token is the verdict of the step after those already judged. The number of steps
is ours, never the model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vrprm_reward.engines.engine import Prompt
from vrprm_reward.errors import ProfileError
from vrprm_reward.scoring import render
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case


@dataclass(frozen=True)
class Frame:
    """How one family of checkpoints is asked."""

    think: Callable[[Profile, Case], Prompt]
    """The thinking request. Only called when the profile thinks."""

    judge: Callable[[Profile, Case, str, Sequence[int]], Prompt]
    """(profile, case, thinking, verdicts of the steps before) -> prompt of the next verdict."""


def _two_stage_think(profile: Profile, case: Case) -> Prompt:
    assert profile.think is not None
    text = "\n".join(render.task(profile, case)) + "\n"
    return Prompt((render.system(profile.think.system), render.user(profile, text, case.images)))


def _two_stage_judge(
    profile: Profile, case: Case, thinking: str, verdicts: Sequence[int]
) -> Prompt:
    parts = render.task(profile, case)
    if profile.think is not None:
        notes = render.thought(profile, thinking)
        parts.append(render.section(profile.sections.thinking, notes))
    parts += render.step_request(profile, case, verdicts)
    return Prompt((render.system(profile.judge.system), render.user(profile, "\n".join(parts))))


_FRAMES = {"two_stage": Frame(_two_stage_think, _two_stage_judge)}


def frame_of(profile: Profile) -> Frame:
    """The frame a profile names.

    Raises:
        ProfileError: the frame is part of the format but not written yet.
    """
    try:
        return _FRAMES[profile.frame]
    except KeyError:
        raise ProfileError(
            f"frame: {profile.frame!r} is not supported by this version; supported: "
            f"{', '.join(_FRAMES)}"
        ) from None
