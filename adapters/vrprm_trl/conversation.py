"""What a TRL prompt and completion hold: the question, its images, and the response's text."""

from collections.abc import Mapping, Sequence
from typing import Any

from vrprm_reward.errors import InputError
from vrprm_reward.types import ImageSource

Message = Mapping[str, Any]

PLACEHOLDER = "<image>"


def question_and_images(prompt: str | Sequence[Message]) -> tuple[str, tuple[ImageSource, ...]]:
    """The text of a prompt's user messages, `<image>` where an image stands, and the images.

    TRL puts a row's images into its conversation before rewards are asked, so these are the images
    that the policy got.

    Raises:
        InputError: the prompt is no conversation, so that it cannot hold images.
    """
    if isinstance(prompt, str):
        raise InputError(
            "the prompt is a text: TRL's multimodal training wants conversations, such as "
            '[{"role": "user", "content": "How many?"}], and a column "images"'
        )
    texts: list[str] = []
    images: list[ImageSource] = []
    for message in prompt:
        if message.get("role") != "user":
            continue
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = ""
        for part in parts or ():
            if part.get("type") == "text":
                text += part["text"]
            elif part.get("type") == "image":
                images.append(part["image"])
                text += PLACEHOLDER
        texts.append(text)
    return "\n\n".join(texts), tuple(images)


def response_text(completion: str | Sequence[Message]) -> str:
    """What the policy wrote.

    Raises:
        InputError: several messages, as tools make them, one without a text, or one of which TRL
            has taken a part (the thinking, tool calls) out of the text.
    """
    if isinstance(completion, str):
        return completion
    if len(completion) == 1:
        _check_whole(completion[0])
        content = completion[0].get("content")
        if isinstance(content, str):
            return content
        texts = [part["text"] for part in content or () if part.get("type") == "text"]
        if len(texts) == 1:
            return str(texts[0])
    raise InputError(
        f"the completion has {len(completion)} messages, or one without a text: only a single "
        "response without tools can be judged"
    )


def _check_whole(message: Message) -> None:
    # Whatever stands beside the text was in it: the judge would not see it, and a step's text might
    # be found in it, in other tokens than its own.
    apart = [key for key, value in message.items() if key not in ("role", "content") and value]
    if apart:
        raise InputError(
            f"the completion's message has {', '.join(map(repr, apart))} apart from its text, so "
            "only a part of what the policy wrote would be judged. TRL parses completions when the "
            "tokenizer has a response_template or a response_schema: set "
            "trainer.processing_class.tokenizer.response_template = None before training (and "
            "response_schema, where it has one), and pass no tools"
        )
