"""What OpenRLHF hands a reward: a query that holds the response, and a label that holds the rest.

Its remote and Python rewards get no images, no question and no response of their own. The response
is what is left of the query when the prompt is taken off; question, images and answer stand in the
label column. The server and the adapter read both here.
"""

import json
import re
from typing import Any, NamedTuple, TypeGuard

from vrprm_reward.errors import LabelError

# In `query` a processor has expanded the one token per image that stands in `prompts`.
_REPEATED = re.compile(r"(<\|?[A-Za-z_]{1,40}\|?>)\1+")
# A tokenizer may put its begin-of-text token before the prompt when it decodes.
_LEADING = re.compile(r"(?:<\|?[A-Za-z_]{1,40}\|?>|\s)*")
_ENDINGS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
    "<pad>",
)


class Label(NamedTuple):
    """What a row's label says of its problem."""

    question: str
    """The question as the policy saw it."""

    images: tuple[str, ...] | None
    """Paths, data URLs or URLs; None where the label names none."""

    answer: str | None
    """The reference answer, if there is one."""


def read_label(value: Any) -> Label:
    """The label of a row: an object `{"question", "images"?, "answer"?}`, or its JSON text.

    Raises:
        LabelError: it is no such object, or a field is of the wrong type.
    """
    if isinstance(value, str):
        if not value.strip():
            raise LabelError(
                "empty: start OpenRLHF with --data.label_key and a column of objects with "
                "question and images (vrprm-reward openrlhf-data writes one)"
            )
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise LabelError("a text that is not the JSON of an object") from None
    if not isinstance(value, dict):
        raise LabelError("not an object with question and images")
    question = value.get("question")
    if not is_text(question) or not question:
        raise LabelError("question is missing, or not a text")
    images = value.get("images", value.get("image"))
    images = [images] if isinstance(images, str) else images
    if images is not None and not (isinstance(images, list) and all(map(is_text, images))):
        raise LabelError("images is not a list of texts")
    answer = value.get("answer", value.get("reference_answer"))
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not is_text(answer):
        raise LabelError("answer is not a text")
    return Label(question, None if images is None else tuple(images), answer)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a text that UTF-8 can hold, unlike half of a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def response_of(query: str, prompt: str) -> str | None:
    """What the policy wrote: the query without its prompt and its closing special tokens.

    Args:
        query: prompt and response, special tokens included and image tokens expanded.
        prompt: the prompt, a single token for each image.

    Returns:
        The response, or None when the query does not begin with the prompt.
    """
    whole, start = _REPEATED.sub(r"\1", query), _REPEATED.sub(r"\1", prompt)
    begin = 0 if whole.startswith(start) else whole.find(start)
    if begin < 0 or not _LEADING.fullmatch(whole, 0, begin):
        return None
    return _without_endings(query[_original_position(query, begin + len(start)) :])


def _original_position(query: str, position: int) -> int:
    """Where a position stands in the query before repeated tokens were collapsed."""
    shift = 0
    for run in _REPEATED.finditer(query):
        if run.start() - shift >= position:
            break
        shift += len(run[0]) - len(run[1])
    return position + shift


def _without_endings(text: str) -> str:
    """The text without the special tokens that end it, and the whitespace around these."""
    end = kept = len(text)
    while True:
        while end > 0 and text[end - 1].isspace():
            end -= 1
        ending = next((each for each in _ENDINGS if text.endswith(each, 0, end)), None)
        if ending is None:
            return text[:kept]
        end -= len(ending)
        kept = end
