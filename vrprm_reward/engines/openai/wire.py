"""What is written to a server: bodies of requests. What it answers is read in `answers`.

Pure functions without any I/O. Two routes exist: `chat` (`/v1/chat/completions`) for
conversations and `completions` (`/v1/completions`) for raw prompts. Either may take several prompts
in one request: vLLM has a path of its own for conversations.
"""

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.errors import EngineError
from vrprm_reward.images import FinalImage

Json = dict[str, Any]
Route = Literal["chat", "completions"]
PATHS: dict[Route, str] = {"chat": "/chat/completions", "completions": "/completions"}
SEVERAL: dict[Route, str] = {"chat": "/chat/completions/batch", "completions": "/completions"}
"""Where a request goes that holds several prompts."""

Spelling = Literal["structured_outputs", "guided_choice", "regex"]
SPELLINGS: tuple[Spelling, ...] = ("structured_outputs", "guided_choice", "regex")
"""How servers are told to choose between words: vLLM from 0.12 on, vLLM before, SGLang."""

VERDICTS = ("1", "0")

GREEDY: Json = {
    "temperature": 0.0,
    "top_p": 1.0,
    # Said although they are the protocol's defaults: vLLM takes its own from the checkpoint's
    # generation_config.json, and a penalty there would change greedy text.
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": False,
}


@dataclass(frozen=True)
class Way:
    """How one server is asked for a verdict."""

    spelling: Spelling
    """How it is told to answer nothing but a verdict."""

    top: int
    """How many of the likeliest tokens it is asked to list."""


class Render(Protocol):
    """The profile's conversation template: messages in transformers' form -> text."""

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False
    ) -> str:
        """Render."""
        ...


def rendered(prompt: Prompt, render: Render) -> str:
    """The text that a model sees for a prompt without images."""
    if prompt.form == "raw":
        return "".join(map(str, prompt.messages[0].parts))
    messages = [
        {"role": turn.role, "content": [{"type": "text", "text": part} for part in turn.parts]}
        for turn in prompt.messages
    ]
    text = render(messages, add_generation_prompt=prompt.form == "reply")
    if prompt.form == "continue":
        last = str(prompt.messages[-1].parts[-1])
        text = text[: text.rindex(last) + len(last)]
    return text


def route_of(prompt: Prompt) -> Route:
    """The route that a prompt takes. Raises `EngineError` for a raw prompt with images."""
    if prompt.form != "raw":
        return "chat"
    if prompt.images:
        raise EngineError("a raw prompt cannot have images over HTTP: use a chat frame for them")
    return "completions"


def prompt_body(
    prompt: Prompt, *, model: str, named: Container[str] = (), naming: bool = False
) -> Json:
    """The part of a request that holds the prompt.

    Args:
        prompt: what is asked.
        model: the served model's id.
        named: digests of images that the server has seen; they are named, not sent.
        naming: whether images get names (vLLM's `uuid`), so that they can be named later.
    """
    if prompt.form == "raw":
        return texts_body("".join(map(str, prompt.messages[0].parts)), model=model)
    messages = [_message(turn, named=named, naming=naming) for turn in prompt.messages]
    return {"model": model, "messages": messages} | _turn_fields(prompt)


def texts_body(texts: str | Sequence[str], *, model: str) -> Json:
    """The part of a request that holds one or several rendered prompts, for `completions`."""
    prompt = texts if isinstance(texts, str) else list(texts)
    return {"model": model, "prompt": prompt, "add_special_tokens": False}


def chats_body(
    prompts: Sequence[Prompt],
    *,
    model: str,
    named: AbstractSet[str] = frozenset(),
    naming: bool = False,
) -> Json:
    """The part of a request that holds several conversations of one form, for `SEVERAL["chat"]`.

    With `naming`, an image that an earlier conversation of the request sends is named in later
    ones. Else as `prompt_body`.
    """
    conversations: list[list[Json]] = []
    known = set(named)
    for prompt in prompts:
        turns = [_message(turn, named=known, naming=naming) for turn in prompt.messages]
        conversations.append(turns)
        if naming:
            known.update(image.digest for image in prompt.images)
    return {"model": model, "messages": conversations} | _turn_fields(prompts[0])


def image_name(digest: str) -> str:
    """The name under which an image is kept at a server. Content and nothing else decides it."""
    return f"vrprm-{digest}"


def _turn_fields(prompt: Prompt) -> Json:
    if prompt.form == "continue":
        return {"continue_final_message": True, "add_generation_prompt": False}
    return {}


def _message(message: Message, *, named: Container[str], naming: bool) -> Json:
    if all(isinstance(part, str) for part in message.parts):
        return {"role": message.role, "content": "".join(map(str, message.parts))}
    content: list[Json] = []
    for part in message.parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            content.append(_image(part, named=named, naming=naming))
    return {"role": message.role, "content": content}


def _image(image: FinalImage, *, named: Container[str], naming: bool) -> Json:
    if not naming:
        return {"type": "image_url", "image_url": {"url": image.data_url()}}
    known = image.digest in named
    return {
        "type": "image_url",
        "image_url": None if known else {"url": image.data_url()},
        "uuid": image_name(image.digest),
    }


def generation_fields(max_tokens: int, stop: str | None) -> Json:
    """Greedy generation that keeps the stop string, in vLLM's and in SGLang's words."""
    fields: Json = {**GREEDY, "max_tokens": max_tokens}
    if stop is not None:
        fields |= {"stop": [stop], "include_stop_str_in_output": True, "no_stop_trim": True}
    return fields


def choice_fields(route: Route, way: Way, words: Sequence[str] = VERDICTS) -> Json:
    """One token, which must be one of `words`, with the likeliest tokens' log-probabilities.

    The words are single letters or digits.
    """
    fields: Json = {**GREEDY, "max_tokens": 1}
    if way.spelling == "structured_outputs":
        fields["structured_outputs"] = {"choice": list(words)}
    elif way.spelling == "guided_choice":
        fields["guided_choice"] = list(words)
    else:
        fields["regex"] = f"[{''.join(words)}]"
    if route == "chat":
        return fields | {"logprobs": True, "top_logprobs": way.top}
    return fields | {"logprobs": way.top}
