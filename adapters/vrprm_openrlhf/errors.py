"""What stops a run, and says why."""

from vrprm_reward.errors import VRPRMError


class OpenRLHFError(VRPRMError):
    """Base of what this adapter raises. Ends the run; the message names the remedy."""

    code = "openrlhf"


class IncompatibleOpenRLHFError(OpenRLHFError, ImportError):
    """This version of OpenRLHF is not one whose methods the hook knows."""

    code = "openrlhf_version"


class MissingHookError(OpenRLHFError):
    """Dense rewards, and nothing in the trainer that would read them."""

    code = "openrlhf_hook"


class StepRewardsError(OpenRLHFError):
    """Step rewards that did not arrive in the trainer as the executor sent them."""

    code = "openrlhf_step_rewards"


class UnscoredError(OpenRLHFError):
    """Rollouts that could not be scored, where the settings do not say what they are worth."""

    code = "openrlhf_unscored"


class RunStopped(BaseException):
    """Stops a run from inside a reward function.

    OpenRLHF logs every `Exception` of a reward function at level INFO and goes on with a missing
    reward, which ends the run later with an unrelated message. So this is none.
    """
