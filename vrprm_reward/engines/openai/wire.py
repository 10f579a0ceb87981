"""What is written to a server and read from it: bodies of requests, fields of answers.

Pure functions without any I/O. Two routes exist: `chat` (`/v1/chat/completions`) for
conversations and `completions` (`/v1/completions`) for raw prompts.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vrprm_reward.engines.engine import Generation, Judgement, Message, Prompt
from vrprm_reward.engines.openai.errors import (
    ConstraintIgnoredError,
    LogprobsMissingError,
    ServerAnswerError,
    ServerRefusedError,
)
from vrprm_reward.errors import EngineError, PromptTooLongError
from vrprm_reward.images import FinalImage

Json = dict[str, Any]
Route = Literal["chat", "completions"]
PATHS: dict[Route, str] = {"chat": "/chat/completions", "completions": "/completions"}

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

_IMPOSSIBLE = -9999.0
"""What vLLM writes for a log-probability of minus infinity, since JSON has none."""


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
    body: Json = {
        "model": model,
        "messages": [_message(turn, named=named, naming=naming) for turn in prompt.messages],
    }
    if prompt.form == "continue":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def texts_body(texts: str | Sequence[str], *, model: str) -> Json:
    """The part of a request that holds one or several rendered prompts, for `completions`."""
    prompt = texts if isinstance(texts, str) else list(texts)
    return {"model": model, "prompt": prompt, "add_special_tokens": False}


def image_name(digest: str) -> str:
    """The name under which an image is kept at a server. Content and nothing else decides it."""
    return f"vrprm-{digest}"


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


def prompt_tokens(answer: Json, server: str) -> int:
    """Length of the prompt in tokens, images included. Raises `ServerAnswerError`."""
    return _usage(answer, "prompt_tokens", server)


def broken_off(answer: Json) -> bool:
    """Whether the server ended a request without an answer, which another server may give."""
    choices = answer.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in choices
    )


def read_generation(
    answer: Json, route: Route, *, stop: str | None, thinking: tuple[str, str], server: str
) -> Generation:
    """Generated text and its cost.

    Thinking that the server moved to a field of its own is put back between its delimiters.

    Raises:
        ServerAnswerError: fields are missing.
    """
    choice = _choice(answer, server)
    text = _text(choice, route)
    finish = choice.get("finish_reason")
    if finish not in ("stop", "length"):
        raise ServerAnswerError(
            f"{server} ended a text with finish_reason {finish!r} instead of 'stop' or 'length': "
            "switch off tool calls and content filters on that server"
        )
    reasoning = _reasoning(choice) if route == "chat" else ""
    if reasoning:
        opening, closing = thinking
        ended = bool(text) or finish == "stop"
        text = f"{opening}{reasoning}{closing if ended else ''}{text}"
    elif stop is not None and stop not in text and _stopped_by(choice, stop):
        text += stop
    return Generation(
        text=text,
        finish=finish,
        prompt_tokens=_usage(answer, "prompt_tokens", server),
        generated_tokens=_usage(answer, "completion_tokens", server),
    )


def read_choice(answer: Json, route: Route, server: str) -> str:
    """The one token's text, wherever the server put it."""
    return _chosen_text(_choice(answer, server), route)


def read_judgement(answer: Json, route: Route, server: str) -> Judgement:
    """The log-probabilities of both verdicts. Nothing but exactly "0" and "1" counts.

    Raises:
        ConstraintIgnoredError: the answer is neither "0" nor "1".
        LogprobsMissingError: one of the two log-probabilities is not there.
        ServerAnswerError: fields are missing.
    """
    found = _verdicts(_choice(answer, server), route, server)
    return Judgement(*found, prompt_tokens(answer, server))


def read_judgements(answer: Json, count: int, server: str) -> tuple[Judgement, ...]:
    """The answers of `completions` to so many prompts, in their order; as `read_judgement`.

    The server counts the tokens of all prompts together; each is given an equal part of them.
    """
    choices = answer.get("choices")
    by_index = {
        choice.get("index"): choice
        for choice in (choices if isinstance(choices, list) else ())
        if isinstance(choice, dict)
    }
    if set(by_index) != set(range(count)):
        raise ServerAnswerError(
            f"{server} answered {count} prompts with choices {sorted(map(str, by_index))}: take "
            "away any proxy before it"
        )
    each, rest = divmod(prompt_tokens(answer, server), count)
    return tuple(
        Judgement(*_verdicts(by_index[index], "completions", server), each + (index < rest))
        for index in range(count)
    )


def _verdicts(choice: Mapping[str, Any], route: Route, server: str) -> tuple[float, float]:
    """Log-probabilities of "0" and of "1"."""
    text = _chosen_text(choice, route)
    try:
        chosen, found = _logprobs(choice, route)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ServerAnswerError(
            f"{server} answered with log-probabilities of an unknown form ({error!r})"
        ) from error
    if text not in VERDICTS or (chosen is not None and chosen != text):
        raise ignored(server, f"it answered {(chosen if text in VERDICTS else text)!r}")
    missing = [word for word in VERDICTS if found.get(word, _IMPOSSIBLE) <= _IMPOSSIBLE]
    if missing:
        listed = ", ".join(repr(token) for token in list(found)[:8]) or "no token at all"
        raise no_logprobs(server, f'of "{missing[0]}" (it listed {listed})')
    return found["0"], found["1"]


def ignored(server: str, what: str) -> ConstraintIgnoredError:
    """The error for an answer that breaks the constraint."""
    return ConstraintIgnoredError(
        f"{server} did not keep to the allowed answers 1 and 0: {what}. Constrained choice must "
        "work on that server: start vLLM without --reasoning-parser and with its structured "
        "outputs enabled, or SGLang with a grammar backend (--grammar-backend xgrammar)"
    )


def no_logprobs(server: str, what: str) -> LogprobsMissingError:
    """The error for a verdict whose log-probabilities do not come."""
    return LogprobsMissingError(
        f"{server} gave no log-probability {what}: allow log-probabilities of at least 5 tokens "
        "there (vLLM: --max-logprobs 20), and take away any proxy that drops them"
    )


def too_long(refusal: ServerRefusedError, context: int | None) -> PromptTooLongError | None:
    """The error for a prompt beyond the context, if that is what a refusal says.

    Args:
        refusal: what the server answered.
        context: the model's context in tokens, where the server told it.
    """
    words = refusal.words
    named = _LIMIT.search(words)
    if refusal.status not in (400, 413, 422) or not (named or _TOO_LONG.search(words)):
        return None
    limit = int(named[1]) if named else context
    if limit is None:
        return None
    counts = [int(number) for number in _TOKENS.findall(words)]
    # A server that stops counting at its limit does not say how long the prompt is.
    return PromptTooLongError(tokens=max([limit, *counts]), limit=limit - 1)


_LIMIT = re.compile(
    r"(?:context[ _](?:length|window|size)|model length|max_model_len)[^0-9]{0,40}?(\d+)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|model length|max_model_len|prompt is too long",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(\d+)\s+(?:input\s+|prompt\s+)?tokens", re.IGNORECASE)


def _choice(answer: Json, server: str) -> Mapping[str, Any]:
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        choice: Mapping[str, Any] = choices[0]
        return choice
    raise ServerAnswerError(
        f"{server} answered without choices ({str(answer)[:200]}): it does not speak the OpenAI "
        "protocol; check the URL"
    )


def _text(choice: Mapping[str, Any], route: Route) -> str:
    if route == "completions":
        return str(choice.get("text") or "")
    return str(_chat_message(choice).get("content") or "")


def _chosen_text(choice: Mapping[str, Any], route: Route) -> str:
    return _text(choice, route) or (_reasoning(choice) if route == "chat" else "")


def _reasoning(choice: Mapping[str, Any]) -> str:
    message = _chat_message(choice)
    return str(message.get("reasoning_content") or message.get("reasoning") or "")


def _chat_message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _stopped_by(choice: Mapping[str, Any], stop: str) -> bool:
    # vLLM's name of the field, then SGLang's.
    return stop in (choice.get("stop_reason"), choice.get("matched_stop"))


def _usage(answer: Json, key: str, server: str) -> int:
    usage = answer.get("usage")
    count = usage.get(key) if isinstance(usage, dict) else None
    if isinstance(count, int):
        return count
    raise ServerAnswerError(f"{server} answered without usage.{key}: take away any proxy before it")


def _logprobs(choice: Mapping[str, Any], route: Route) -> tuple[str | None, dict[str, float]]:
    """The chosen token, and tokens with their log-probabilities; empty where there are none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None, {}
    if route == "completions":
        tokens = logprobs.get("tokens") or [None]
        listed = (logprobs.get("top_logprobs") or [None])[0] or {}
        chosen_at = (logprobs.get("token_logprobs") or [None])[0]
        pairs = [*listed.items(), (tokens[0], chosen_at)]
        return tokens[0], {token: float(p) for token, p in pairs if _number(p)}
    entries = logprobs.get("content") or []
    if not entries:
        return None, {}
    entries = [entries[0], *(entries[0].get("top_logprobs") or [])]
    found = {_spelled(e): float(e["logprob"]) for e in entries if _number(e.get("logprob"))}
    return _spelled(entries[0]), found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spelled(entry: Mapping[str, Any]) -> str:
    """A token's text; its bytes are surer, since servers may write `token_id:16` for it."""
    spelled = entry.get("bytes")
    if isinstance(spelled, list) and spelled:
        return bytes(spelled).decode("utf-8", errors="replace")
    return str(entry.get("token"))
