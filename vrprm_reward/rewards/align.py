"""Which token of a response holds the last character of each step.

Found from the response's own token ids: tokenising the text again may cut it differently.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from vrprm_reward.errors import AlignmentError
from vrprm_reward.types import Step

REPLACEMENT = "\ufffd"
"""What bytes that are no character decode to, such as half of one at the length limit."""

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}


def token_bytes(ids: Sequence[int], tokenizer: Any, skip_special_tokens: bool) -> list[bytes]:
    """What each token adds to the decoded text; nothing for special tokens that are skipped, and
    for ids without a token (models have more rows than their tokenizers have tokens).

    Raises `AlignmentError` for a tokenizer that is not a byte-level BPE (such as SentencePiece).
    """
    added = tokenizer.added_tokens_decoder
    skipped: set[int] = set()
    if skip_special_tokens:
        # As decoding does, also those that are marked as special without having a role.
        reserved = {token_id for token_id, token in added.items() if token.special}
        skipped = reserved | set(tokenizer.all_special_ids)
    found = []
    for token_id, token in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if token is None or token_id in skipped:
            found.append(b"")
        elif token_id in added:
            found.append(token.encode())
        elif any(character not in _BYTES for character in token):
            raise AlignmentError(
                f"token {token_id} is {token!r}, which is no byte-level BPE token; only byte-level "
                "tokenizers (Qwen, Llama 3, GPT-2 and their like) can be aligned exactly"
            )
        else:
            found.append(bytes(_BYTES[character] for character in token))
    return found


def last_tokens(
    ids: Sequence[int],
    tokenizer: Any,
    text: str,
    steps: Sequence[Step],
    *,
    mask: Sequence[int] | None = None,
    skip_special_tokens: bool = True,
) -> list[int]:
    """Index into `ids` of the token that completes the last character of each step.

    `text` is what the steps' spans refer to: `tokenizer.decode(ids, skip_special_tokens=...)`,
    perhaps without white space around it. Where `mask` (one number per token; 0 for tool and
    padding tokens) rules a token out, the step's last token that is not ruled out is taken.
    Steps whose ends share a token get the same index; indices never decrease. Linear in tokens.

    Raises `AlignmentError` when the ids do not spell `text`, or a step has no token of its own.
    """
    pieces = token_bytes(ids, tokenizer, skip_special_tokens)
    decoded = b"".join(pieces).decode("utf-8", errors="replace")
    start = decoded.find(text)
    if start < 0:
        raise AlignmentError(
            f"the response's tokens spell {_shown(decoded)}, which does not contain the text that "
            f"was split into steps, {_shown(text)}; split the text that these tokens decode to"
        )
    ends = list(accumulate(len(piece) for piece in pieces))
    starts = [end - len(piece) for end, piece in zip(ends, pieces, strict=True)]
    offsets = _byte_ends(b"".join(pieces), decoded)
    found: list[int] = []
    token = 0
    for index, step in enumerate(steps):
        last = offsets[start + step.end - 1]
        while ends[token] < last:
            token += 1
        place = token
        if mask is not None:
            first = offsets[start + step.start - 1] if start + step.start else 0
            while place >= 0 and not mask[place] and starts[place] > first:
                place -= 1
            if not mask[place] or ends[place] <= first:
                raise AlignmentError(f"step {index} has no token that is not masked")
        found.append(place)
    return found


def place(
    rewards: Sequence[float], tokens: Sequence[int], length: int, *, visible_zero: float = 0.0
) -> torch.Tensor:
    """Token-level rewards: float32 of shape (length,), each step's reward on its token.

    Rewards of steps that share a token are added, so no reward is lost. A sum of exactly 0 is
    written as `visible_zero`, for readers that find the steps by looking for what is not 0.
    """
    found = torch.zeros(length, dtype=torch.float32)
    where = torch.tensor(tokens, dtype=torch.long)
    found.index_add_(0, where, torch.tensor(rewards, dtype=torch.float32))
    found[where] = torch.where(found[where] == 0, visible_zero, found[where])
    return found


def _byte_ends(data: bytes, decoded: str) -> list[int]:
    """For every character of the decoded text, the number of bytes up to its end."""
    ends = []
    position = 0
    for character in decoded:
        size = len(character.encode())
        if character == REPLACEMENT and data[position : position + size] != character.encode():
            size = _broken_bytes(data[position : position + 4])
        position += size
        ends.append(position)
    return ends


def _broken_bytes(data: bytes) -> int:
    """How many bytes at the start of `data` decode to one replacement character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end
    raise AssertionError(f"{data!r} is valid UTF-8")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}")
