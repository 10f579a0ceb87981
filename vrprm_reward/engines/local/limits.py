"""How large passes and the cache may be, which changes when memory runs out."""

import logging

import torch

from vrprm_reward.engines.local.kv_pool import KVPool

_log = logging.getLogger(__name__)

SMALLEST_PASS = 64
"""Tokens of a forward pass below which the budget is not halved any further."""

CALM_PASSES = 64
"""Passes without running out of memory after which passes and cache may grow again."""

_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
"""Of torch's CPU allocator, of CUDA outside torch's allocator, of cuBLAS and cuDNN."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on the GPU or here."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


class Limits:
    """The bounds of a scheduler.

    Args:
        pool: its cached sequences.
        pass_tokens: bound on the tokens of one forward pass, to begin with.
    """

    def __init__(self, pool: KVPool, pass_tokens: int) -> None:
        self.pass_tokens = pass_tokens
        self.shrunk = 0
        """How often something was made smaller."""

        self._pool = pool
        self._full_cache = pool.budget
        self._full_pass = pass_tokens
        self._calm = 0

    def halve(self) -> bool:
        """Make passes and cache half as large. False when they are as small as they may be."""
        if self.pass_tokens // 2 < SMALLEST_PASS:
            return False
        self.pass_tokens //= 2
        self._shrink(max(self._pool.budget // 2, self._pool.reserved // 2))
        return True

    def let_nobody_begin(self) -> None:
        """Cache no more than what is in use: no newcomer before somebody has ended."""
        self._pool.clear_idle()
        self._shrink(self._pool.reserved)

    def went_well(self) -> None:
        """Note a pass that had memory; after some both may grow, as far as they were."""
        self._calm += 1
        if self._calm >= CALM_PASSES:
            self.pass_tokens = min(2 * self.pass_tokens, self._full_pass)
            self._pool.budget = min(2 * max(self._pool.budget, 1), self._full_cache)
            self._calm = 0

    def drop_idle(self) -> None:
        """Free what nobody is using now; the limits stay."""
        self._pool.clear_idle()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _shrink(self, cache_tokens: int) -> None:
        self._pool.budget = cache_tokens
        self._calm = 0
        self.drop_idle()
        if self.shrunk == 0:
            _log.warning(
                "out of memory: going on with at most %d tokens a pass and %d cached tokens; pass "
                "a smaller pass_tokens or cache_tokens to start like that",
                self.pass_tokens,
                cache_tokens,
            )
        self.shrunk += 1
