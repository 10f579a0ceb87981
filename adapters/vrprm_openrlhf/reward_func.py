"""For --reward.remote_url: OpenRLHF loads this file by its path."""

from vrprm_openrlhf.reward import reward_func

__all__ = ["reward_func"]
