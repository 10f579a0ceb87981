"""Process rewards in TRL's GRPOTrainer: a reward function, and a trainer with step advantages."""

from vrprm_trl.reward import ProcessRewardFunction

__all__ = ["ProcessRewardFunction", "StepGRPOTrainer"]


def __getattr__(name: str) -> object:
    # TRL is imported only where its trainer is asked for.
    if name == "StepGRPOTrainer":
        from vrprm_trl.trainer import StepGRPOTrainer

        return StepGRPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
