"""A reward function for verl's configuration to name where verl hosts the reward model.

With `reward.reward_model.enable=True` verl only calls a reward manager at all when
`reward.custom_reward_function.path` is set. This is the function to name there.
"""

from typing import Any


def compute_score(**_: Any) -> float:
    """Never called by this package's reward manager. Raises `RuntimeError` for any other."""
    raise RuntimeError(
        "vrprm_verl.score.compute_score only opens the way to the reward manager: set "
        "reward.reward_manager.name=vrprm"
    )
