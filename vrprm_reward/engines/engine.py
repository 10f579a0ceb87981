"""What a scorer asks of an engine: generate text, and read one judgement.

An engine is told prompts as messages. How messages become text (the conversation template), and
how many prompts share a batch, is the engine's business.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

from vrprm_reward.images import FinalImage

Role = Literal["system", "user", "assistant"]
Part = str | FinalImage


@dataclass(frozen=True)
class Message:
    """One turn: text and images in the order in which they stand in the prompt."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Prompt:
    """A conversation whose next words are wanted.

    With `form="reply"` a new assistant turn is opened; with `form="continue"` the last message
    (an assistant's) goes on where it stops; with `form="raw"` there is one message whose text is
    the whole prompt, without any conversation template.
    """

    messages: tuple[Message, ...]
    form: Literal["reply", "continue", "raw"] = "reply"

    @property
    def images(self) -> tuple[FinalImage, ...]:
        """All images, in the order of the prompt."""
        return tuple(
            part for turn in self.messages for part in turn.parts if isinstance(part, FinalImage)
        )


@dataclass(frozen=True)
class Generation:
    """Generated text."""

    text: str
    finish: Literal["stop", "length", "context"]
    """`length`: `max_tokens` ran out before an end; `context`: the model's context did, before
    that, since the prompt left less room."""

    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Judgement:
    """Log-probabilities of the two verdicts at one position.

    Only their difference matters, so raw and renormalised log-probabilities serve alike.
    """

    log_p0: float
    log_p1: float
    prompt_tokens: int


class Engine(Protocol):
    """A model that can be asked. All methods may be called from any thread and event loop."""

    @property
    def identity(self) -> str:
        """Name of the checkpoint, for caches and reports."""
        ...

    @property
    def added_tokens(self) -> frozenset[str]:
        """Strings that the tokenizer turns into one reserved token wherever they stand."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether every expected share is waited for, so that a call's shares must be expected
        together and none may depend on another's end."""
        ...

    def fixed_point_pays(self, *, rollouts: int, steps: int) -> bool:
        """Whether judging all steps at once is quicker than one after another, for so many
        rollouts at a time with so many steps each."""
        ...

    async def generate(
        self, prompt: Prompt, *, max_tokens: int, stop: str | None, share: Hashable
    ) -> Generation:
        """Continue `prompt` greedily until `stop` (kept in the text), an end, or `max_tokens`.

        `share` names the (problem, rollout) that the prompt belongs to; an engine may keep what
        it computed under it. Raises `EngineError`.
        """
        ...

    async def judge(self, prompt: Prompt, *, share: Hashable) -> Judgement:
        """Read the log-probabilities of "0" and "1" as the next token. Raises `EngineError`."""
        ...

    def expect(self, share: Hashable) -> None:
        """Hear that `share` will ask soon; an engine may wait a moment for its company."""
        ...

    def release(self, share: Hashable) -> None:
        """Hear that `share` will not ask again; what was kept for it may go."""
        ...

    def close(self) -> None:
        """Free the model. Pending calls end with `EngineClosedError`."""
        ...
