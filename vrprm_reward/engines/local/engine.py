"""The in-process engine: a transformers checkpoint behind the `Engine` interface."""

import asyncio
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import torch

from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.engines.local import memory
from vrprm_reward.engines.local.checkpoint import Checkpoint, load_checkpoint
from vrprm_reward.engines.local.encode import EncodedPrompt, PromptEncoder
from vrprm_reward.engines.local.kv_pool import KVPool
from vrprm_reward.engines.local.options import DEFAULT_OPTIONS, LocalOptions
from vrprm_reward.engines.local.packed import PackedModel
from vrprm_reward.engines.local.scheduler import Scheduler, Stats
from vrprm_reward.engines.local.sequences import Job
from vrprm_reward.engines.local.vision import Vision
from vrprm_reward.errors import PromptTooLongError


class LocalEngine:
    """A checkpoint in this process, on a GPU or the CPU.

    Args:
        checkpoint: a loaded checkpoint; the engine owns it from now on.
        template: the profile's conversation template (Jinja source).
        options: sizes and determinism; `device` and `dtype` are the checkpoint's already.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, template: str, options: LocalOptions = DEFAULT_OPTIONS
    ) -> None:
        self._name = checkpoint.name
        self._context = checkpoint.context_tokens
        self._encoder = PromptEncoder(
            checkpoint.tokenizer,
            checkpoint.image_processor,
            template=template,
            image_token_id=checkpoint.model.config.image_token_id,
            rope_index=checkpoint.model.model.get_rope_index,
        )
        _ = self._encoder.verdict_ids  # a tokenizer that cannot judge is refused before any work
        if options.deterministic:
            torch.set_num_threads(1)
        self._deterministic = options.deterministic
        model = PackedModel(checkpoint.model, cuda_graphs=options.cuda_graphs)
        self._vision = Vision(
            checkpoint.model, self._encoder, cache_bytes=options.image_cache_bytes
        )
        cache_tokens = options.cache_tokens or memory.cache_tokens(model.shape)
        self._scheduler = Scheduler(
            model,
            self._vision,
            self._encoder,
            KVPool(model.shape, budget=cache_tokens),
            ends=checkpoint.end_ids,
            pass_tokens=options.pass_tokens or memory.pass_tokens(model.shape.device),
            deterministic=options.deterministic,
        )

    @classmethod
    def load(
        cls, name: str | Path, *, template: str, options: LocalOptions = DEFAULT_OPTIONS
    ) -> "LocalEngine":
        """Load a checkpoint and start an engine. Raises `CheckpointError`, `InputError`."""
        checkpoint = load_checkpoint(
            name,
            device=options.device,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
        )
        return cls(checkpoint, template=template, options=options)

    @property
    def identity(self) -> str:
        """Folder or model id of the checkpoint."""
        return self._name

    @property
    def added_tokens(self) -> frozenset[str]:
        """The tokenizer's reserved strings."""
        return self._encoder.added_tokens

    @property
    def stats(self) -> Stats:
        """Passes, tokens and seconds since the start."""
        return self._scheduler.stats

    @property
    def images_encoded(self) -> int:
        """Images that went through the vision tower."""
        return self._vision.encoded

    @property
    def deterministic(self) -> bool:
        """Whether what shares a pass may not depend on timing."""
        return self._deterministic

    def fixed_point_pays(self, *, rollouts: int, steps: int) -> bool:
        """By the measured cost of passes and tokens; see `PassCost`."""
        cost = self._scheduler.cost
        return not self._deterministic and cost.fixed_point_pays(rollouts=rollouts, steps=steps)

    async def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: str | None, share: Hashable
    ) -> Generation:
        """Continue greedily; fewer than `max_tokens` where the context ends before."""
        encoded = self._encode(prompt)
        room = self._context - len(encoded)
        job = Job(encoded, share, min(max_tokens, room), stop)
        generation: Generation = await asyncio.wrap_future(self._scheduler.submit(job))
        if generation.finish == "length" and room < max_tokens:
            return replace(generation, finish="context")
        return generation

    async def judge(self, prompt: Prompt, *, share: Hashable) -> Judgement:
        """Log-probabilities of the two verdicts after `prompt`."""
        job = Job(self._encode(prompt), share)
        judgement: Judgement = await asyncio.wrap_future(self._scheduler.submit(job))
        return judgement

    def expect(self, share: Hashable) -> None:
        """Say that `share` will ask soon, so that others may wait for its company."""
        self._scheduler.expect(share)

    def release(self, share: Hashable) -> None:
        """Say that `share` will not ask again."""
        self._scheduler.release(share)

    def close(self) -> None:
        """End the scheduler's thread; unfinished calls fail with `EngineClosedError`."""
        self._scheduler.close()

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        encoded = self._encoder.encode(prompt)
        if len(encoded) >= self._context:
            raise PromptTooLongError(tokens=len(encoded), limit=self._context - 1)
        return encoded
