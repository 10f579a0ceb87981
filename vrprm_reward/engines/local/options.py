"""Settings of the in-process engine. Needs no torch, so that callers can build them anywhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalOptions:
    """Settings of the local engine; None: found from the device and its free memory."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, ..."""

    dtype: str = "auto"
    """`auto` (bfloat16 on CUDA, else float32), `float32`, `bfloat16` or `float16`."""

    pass_tokens: int | None = None
    """Bound on the tokens of one forward pass."""

    cache_tokens: int | None = None
    """Bound on the tokens whose keys and values are kept for reuse."""

    image_cache_bytes: int = 256 * 2**20
    """Bound on the encoded images that are kept; 0 keeps none."""

    deterministic: bool = False
    """Whether what shares a pass may not depend on timing, and one thread computes: two runs of
    the same calls give the same bits. The schedule is lockstep, whatever was asked for."""

    cuda_graphs: bool = False
    """Whether small passes are recorded on a GPU, which makes thinking faster. The commands do it.
    Not in a process in which other threads use the GPU too, such as a trainer's: while something
    is recorded, they must not draw random numbers there or wait for all of it."""

    trust_remote_code: bool = False
    """Whether code that comes with a checkpoint may run."""


DEFAULT_OPTIONS = LocalOptions()
