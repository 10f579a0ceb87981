"""The in-process engine: a transformers checkpoint behind the `Engine` interface."""

import asyncio
from collections.abc import Hashable
from pathlib import Path

from vrprm_reward.engines.engine import Generation, Judgement, Prompt
from vrprm_reward.engines.local.checkpoint import Checkpoint, load_checkpoint
from vrprm_reward.engines.local.encode import EncodedPrompt, PromptEncoder
from vrprm_reward.engines.local.forward import Forward
from vrprm_reward.engines.local.scheduler import Job, Scheduler
from vrprm_reward.errors import PromptTooLongError

DEFAULT_BATCH_TOKENS = 8192


class LocalEngine:
    """A checkpoint in this process, on a GPU or the CPU.

    Args:
        checkpoint: a loaded checkpoint; the engine owns it from now on.
        template: the profile's conversation template (Jinja source).
        batch_tokens: bound on the padded tokens of one batch.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, template: str, batch_tokens: int = DEFAULT_BATCH_TOKENS
    ) -> None:
        self._name = checkpoint.name
        self._context = checkpoint.context_tokens
        self._encoder = PromptEncoder(
            checkpoint.tokenizer,
            checkpoint.image_processor,
            template=template,
            image_token_id=checkpoint.model.config.image_token_id,
        )
        _ = self._encoder.verdict_ids  # a tokenizer that cannot judge is refused before any work
        self._scheduler = Scheduler(Forward(checkpoint, self._encoder), batch_tokens=batch_tokens)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        template: str,
        device: str = "auto",
        dtype: str = "auto",
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        trust_remote_code: bool = False,
    ) -> "LocalEngine":
        """Load a checkpoint and start an engine. Raises `CheckpointError`, `InputError`."""
        checkpoint = load_checkpoint(
            name, device=device, dtype=dtype, trust_remote_code=trust_remote_code
        )
        return cls(checkpoint, template=template, batch_tokens=batch_tokens)

    @property
    def identity(self) -> str:
        """Folder or model id of the checkpoint."""
        return self._name

    @property
    def added_tokens(self) -> frozenset[str]:
        """The tokenizer's reserved strings."""
        return self._encoder.added_tokens

    async def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: str | None,
        share: Hashable,  # noqa: ARG002
    ) -> Generation:
        """Continue greedily; fewer than `max_tokens` where the context ends before."""
        encoded = self._encode(prompt)
        room = self._context - len(encoded)
        future = self._scheduler.submit(Job(encoded, min(max_tokens, room), stop))
        generation: Generation = await asyncio.wrap_future(future)
        return generation

    async def judge(self, prompt: Prompt, *, share: Hashable) -> Judgement:  # noqa: ARG002
        """Log-probabilities of the two verdicts after `prompt`."""
        future = self._scheduler.submit(Job(self._encode(prompt)))
        judgement: Judgement = await asyncio.wrap_future(future)
        return judgement

    def release(self, share: Hashable) -> None:
        """Nothing is kept between prompts yet."""

    def close(self) -> None:
        """End the scheduler's thread; waiting calls fail with `EngineClosedError`."""
        self._scheduler.close()

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        encoded = self._encoder.encode(prompt)
        if len(encoded) >= self._context:
            raise PromptTooLongError(tokens=len(encoded), limit=self._context - 1)
        return encoded
