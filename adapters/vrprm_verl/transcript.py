"""Sampled token ids -> the text that is judged, its steps, and the token that ends each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from vrprm_reward.rewards.align import last_tokens, token_bytes
from vrprm_reward.steps import StepSettings, split_steps
from vrprm_reward.types import Step


@dataclass(frozen=True)
class Transcript:
    """A response as the reward model reads it."""

    text: str
    """What all tokens decode to, special tokens left out; text from tools included."""

    steps: tuple[Step, ...]
    """Steps of the policy's own text; empty when there are none in the part that is judged."""

    tokens: tuple[int, ...]
    """Per step, the index of its last token that the policy wrote. A response that was cut off in
    its last step has no token behind it: there it is the one before, since what stands on the last
    token of a response is what its end earns."""

    policy_text: str
    """The policy's own text, which outcomes are read from."""

    last: int | None
    """Index of the last token that the policy wrote; None when it wrote none."""


def read_transcript(
    ids: Sequence[int], mask: Sequence[int], tokenizer: Any, settings: StepSettings
) -> Transcript:
    """Divide a response into steps without ever making a step of what a tool wrote.

    Each stretch of policy tokens is divided by itself, so no step reaches over a tool's answer.

    Args:
        ids: the response's token ids, as sampled, without padding.
        mask: for each, 1 where the policy wrote it and 0 where a tool did.
        tokenizer: the policy's; a byte-level BPE.
        settings: how text is divided.

    Raises:
        AlignmentError: the tokenizer is of another kind, or the ids spell no text.
    """
    pieces = token_bytes(ids, tokenizer, skip_special_tokens=True)
    text = ""
    own: list[str] = []
    steps: list[Step] = []
    start = 0
    for by_policy, run in groupby(range(len(ids)), key=lambda index: bool(mask[index])):
        stop = start + len(list(run))
        part = b"".join(pieces[start:stop]).decode("utf-8", errors="replace")
        if by_policy:
            own.append(part)
            steps += [_moved(step, len(text)) for step in split_steps(part, settings)]
        text += part
        start = stop
    tokens = last_tokens(ids, tokenizer, text, steps, mask=mask)
    last = next((index for index in reversed(range(len(ids))) if mask[index]), None)
    return Transcript(text, tuple(steps), _before_the_end(tokens, mask, last), "\n".join(own), last)


def _before_the_end(
    tokens: Sequence[int], mask: Sequence[int], last: int | None
) -> tuple[int, ...]:
    """The steps' tokens; the last step's is not the response's last, if it has another one."""
    if not tokens or tokens[-1] != last:
        return tuple(tokens)
    *others, end = tokens
    first = others[-1] + 1 if others else 0
    return (*others, next((i for i in range(end - 1, first - 1, -1) if mask[i]), end))


def _moved(step: Step, by: int) -> Step:
    return Step(text=step.text, start=step.start + by, end=step.end + by)
