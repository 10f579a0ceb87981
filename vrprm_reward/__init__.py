"""Visual process rewards, per step, for reinforcement learning of vision-language policies."""

from vrprm_reward.errors import VRPRMError
from vrprm_reward.images import ImageSettings
from vrprm_reward.process_reward import LoadedReward, ProcessReward, load_process_reward
from vrprm_reward.scoring.profile import Profile, load_profile
from vrprm_reward.steps import StepSettings, join_steps, locate_steps, split_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout, Step, Usage

__all__ = [
    "ImageSettings",
    "LoadedReward",
    "Problem",
    "ProcessReward",
    "ProcessScore",
    "Profile",
    "Rollout",
    "Step",
    "StepSettings",
    "Usage",
    "VRPRMError",
    "join_steps",
    "load_process_reward",
    "load_profile",
    "locate_steps",
    "split_steps",
]
