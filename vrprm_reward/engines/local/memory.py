"""How large passes and caches may be, from the memory that is free when an engine starts."""

import os

import torch

from vrprm_reward.engines.local.kv_memory import CacheShape

CPU_PASS_TOKENS = 1024
"""On a CPU, passes beyond some thousand tokens fall out of its caches and get slower per token."""

GPU_PASS_TOKENS = 8192

_SHARE_OF_FREE = 0.4
_MOST_CACHED_TOKENS = 2**18


def free_bytes(device: torch.device) -> int:
    """Memory that is free now, on the GPU or on this machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pass_tokens(device: torch.device) -> int:
    """Bound on the tokens of one forward pass."""
    return GPU_PASS_TOKENS if device.type == "cuda" else CPU_PASS_TOKENS


def cache_tokens(shape: CacheShape) -> int:
    """Bound on the tokens whose keys and values are kept."""
    fitting = int(free_bytes(shape.device) * _SHARE_OF_FREE) // shape.bytes_per_token
    return max(1024, min(fitting, _MOST_CACHED_TOKENS))
