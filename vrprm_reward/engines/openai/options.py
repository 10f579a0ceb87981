"""Settings of the engine that speaks to servers. Needs no HTTP client."""

import math
from dataclasses import dataclass, field

from vrprm_reward.connections import bearer_token

QWEN_VL_ADDED_TOKENS = frozenset(
    {
        "<|endoftext|>", "<|im_start|>", "<|im_end|>",
        "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
        "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
        "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
        "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
        "<|repo_name|>", "<|file_sep|>",
        "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
        "<think>", "</think>",
    }
)  # fmt: skip
"""Strings that the tokenizers of Qwen2-VL to Qwen3-VL turn into one reserved token."""


@dataclass(frozen=True)
class OpenAIOptions:
    """Settings of the engine that speaks to servers. Times are in seconds."""

    model: str = "auto"
    """Model id; `auto`: the first one that a server lists. All servers must serve the same."""

    api_key: str | None = field(default=None, repr=False)
    """Sent as a bearer token, without the blanks and line breaks around it; an empty one is none.
    `InputError` where it is not printable ASCII."""

    max_in_flight: int = 64
    """Most requests at one server at one time; further ones wait here."""

    connect_timeout: float = 5.0
    """For one connection."""

    attempt_timeout: float = 300.0
    """For one attempt, from its start to the end of its answer."""

    total_timeout: float = 900.0
    """For one call with all its attempts and pauses. Waiting for its first turn does not count as
    long as servers answer others."""

    max_attempts: int = 8
    """Attempts of one call; and failed connections in a row that make a server count as dead."""

    first_pause: float = 0.25
    """Pause before the second attempt; it doubles with each further one, up to `longest_pause`,
    and up to half of it is taken off at random."""

    longest_pause: float = 30.0
    """Longest pause between two attempts, unless the server asks for a longer one, up to 60 s."""

    check_template: bool = True
    """Whether a server's conversation template is compared with the profile's when connecting."""

    image_references: bool = True
    """Whether an image that a server has already seen is named instead of sent again, where the
    server can do that (vLLM)."""

    added_tokens: frozenset[str] = QWEN_VL_ADDED_TOKENS
    """Reserved strings of the served model's tokenizer, which is not here to be asked."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_key", bearer_token(self.api_key, "the API key"))
        for name in ("max_in_flight", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("connect_timeout", "attempt_timeout", "total_timeout"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}: it is a positive number of seconds")


DEFAULT_OPENAI_OPTIONS = OpenAIOptions()
