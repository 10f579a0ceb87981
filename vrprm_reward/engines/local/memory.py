"""How large passes and caches may be, from the memory that is free when an engine starts."""

import os
from pathlib import Path

import torch

from vrprm_reward.engines.local.kv_memory import CacheShape

CPU_PASS_TOKENS = 1024
"""On a CPU, passes beyond some thousand tokens fall out of its caches and get slower per token."""

GPU_PASS_TOKENS = 8192

_SHARE_OF_FREE = 0.4
_MOST_CACHED_TOKENS = 2**18

_UNKNOWN = 4 * 2**30
"""Taken to be free where the system does not say (macOS, Windows)."""

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_NAMES_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_NAMES_2 = ("memory.max", "memory.current", "inactive_file")
"""By version: limit, use, and how much of it is files that were only read."""


def free_bytes(device: torch.device) -> int:
    """Memory that is free now, on the GPU, or on this machine and in this container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([_free_on_machine(), *_free_in_cgroups()])


def _free_on_machine() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return _UNKNOWN


def _free_in_cgroups() -> list[int]:
    """What the limits of this process's control groups leave: Linux, both versions."""
    if not _OWN_CGROUPS.exists():
        return []
    found = []
    for line in _OWN_CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = _CGROUPS, _NAMES_2
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", _NAMES_1
        else:
            continue
        # A container may see its own group as the root, and a group is bound by those above it.
        own = root / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                found += _left(folder, *names)
    return found


def _left(folder: Path, limit: str, used: str, cache: str) -> list[int]:
    """Bytes that one group may still take; nothing where it has no limit.

    Files that were read, such as a checkpoint, count as used until their memory is wanted.
    """
    try:
        most, taken = (folder / limit).read_text().strip(), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return []
    return [] if most == "max" else [max(0, int(most) - taken + int(stat.get(cache, 0)))]


def pass_tokens(device: torch.device) -> int:
    """Bound on the tokens of one forward pass."""
    return GPU_PASS_TOKENS if device.type == "cuda" else CPU_PASS_TOKENS


def cache_tokens(shape: CacheShape) -> int:
    """Bound on the tokens whose keys and values are kept."""
    fitting = int(free_bytes(shape.device) * _SHARE_OF_FREE) // shape.bytes_per_token
    return max(1024, min(fitting, _MOST_CACHED_TOKENS))
