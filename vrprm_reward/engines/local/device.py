"""Where the model runs and in which numeric type: the one place that decides."""

import torch

from vrprm_reward.errors import InputError

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str = "auto") -> torch.device:
    """`auto`: the first CUDA device, else the CPU; anything else as torch spells it.

    Raises:
        InputError: torch does not know the device or it is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used here: pass 'cpu', 'cuda' or 'auto' "
            f"({str(error).splitlines()[0]})"
        ) from error
    return chosen


def pick_dtype(device: torch.device, dtype: str = "auto") -> torch.dtype:
    """`auto`: bfloat16 on CUDA, float32 on the CPU, where half precision is slow.

    Raises:
        InputError: not one of `auto`, `float32`, `bfloat16`, `float16`.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in _TYPES:
        raise InputError(f"dtype {dtype!r} is not one of auto, {', '.join(_TYPES)}")
    return _TYPES[dtype]
