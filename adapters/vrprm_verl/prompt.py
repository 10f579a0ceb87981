"""A row of verl's reward loop -> the problem, its reference answer, and what else is known of it.

verl hands images on in the messages of `raw_prompt`; where it leaves out everything else (the V1
trainer with a colocated reward model), the agent loops of this package have put a note on the
first message.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vrprm_reward.errors import InputError, MissingImageError
from vrprm_reward.types import ImageSource, Problem

NOTE = "vrprm"
"""Key of the note on the first message of `raw_prompt`."""


def problem_of(
    messages: Sequence[Mapping[str, Any]],
    extra_info: Mapping[str, Any],
    reference: str | None,
    question_key: str | None,
) -> Problem:
    """Question and images of a prompt.

    Raises:
        InputError: there is no question.
        MissingImageError: there is no image: a reward computed without it is worse than none.
    """
    texts: list[str] = []
    images: list[ImageSource] = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found, own = _read_parts(parts)
        images += found
        if message.get("role") == "user":
            texts.append(own)
    question = "\n\n".join(texts)
    if question_key is not None:
        question = str(extra_info.get(question_key) or "")
    if not question.strip():
        where = (
            "the prompt's user messages" if question_key is None else f"extra_info.{question_key}"
        )
        raise InputError(f"there is no question in {where}")
    if not images:
        raise MissingImageError(
            "the prompt has no image: check data.image_key and the <image> placeholders"
        )
    return Problem(question=question, images=tuple(images), reference_answer=reference)


def _read_parts(parts: Iterable[Mapping[str, Any]]) -> tuple[list[ImageSource], str]:
    images: list[ImageSource] = []
    text = ""
    for part in parts:
        kind = part.get("type")
        if kind == "text":
            text += part["text"]
        elif kind in ("image", "image_url"):
            images.append(_image(part))
            text += "<image>"
        else:
            raise InputError(f"a message holds {kind!r}; VRPRM judges text and images only")
    return images, text


def _image(part: Mapping[str, Any]) -> ImageSource:
    url = part.get("image_url")
    candidates = [
        part.get("image"),
        part.get("bytes"),
        url.get("url") if isinstance(url, Mapping) else url,
        part.get("path"),
    ]
    found: ImageSource | None = next((each for each in candidates if each is not None), None)
    if found is None:
        raise MissingImageError(f"an image part holds no image, only {', '.join(sorted(part))}")
    return found


def note_of(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What an agent loop has noted on the prompt; empty when there is no note."""
    note = messages[0].get(NOTE) if len(messages) else None
    return note if isinstance(note, Mapping) else {}


def ground_truth_of(reward_model: Any) -> Any:
    """The ground truth of verl's `reward_model` column as it is; None when there is none."""
    return reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None


def reference_of(value: Any) -> str | None:
    """A ground truth as the text of one answer; None when it is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    return None


def why_unreadable(value: Any, outcome: str) -> str | None:
    """Why a ground truth is no reference for an outcome; None where it is one, or there is none."""
    if value is None or reference_of(value) is not None:
        return None
    return (
        f"reward_model.ground_truth is a {type(value).__name__}, and outcome={outcome} compares "
        "with one text: make it a string, or set reward.vrprm.outcome=custom_reward_function, "
        "which gets it as it is"
    )
