"""What is read from a server: generated text, verdicts, counts, and what a refusal means.

Pure functions without any I/O; answers of both routes (see `wire`).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vrprm_reward.engines.engine import Generation, Judgement
from vrprm_reward.engines.openai.errors import (
    ConstraintIgnoredError,
    LogprobsMissingError,
    ServerAnswerError,
    ServerRefusedError,
)
from vrprm_reward.engines.openai.http import PassingFailure
from vrprm_reward.engines.openai.wire import VERDICTS, Json, Route
from vrprm_reward.errors import PromptTooLongError

_IMPOSSIBLE = -9999.0
"""What vLLM writes for a log-probability of minus infinity, since JSON has none."""


def prompt_tokens(answer: Json, server: str) -> int:
    """Length of the prompt in tokens, images included. Raises `ServerAnswerError`."""
    return _usage(answer, "prompt_tokens", server)


def raise_if_broken_off(answer: Json, server: str) -> None:
    """Raise `PassingFailure` where the server ended a request without an answer."""
    choices = answer.get("choices")
    if isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in choices
    ):
        raise PassingFailure(
            f"{server} broke off a request (finish_reason 'abort'), as servers do that shut down "
            "or pause",
            kind="answer",
        )


def unknown_end(finish: object, server: str) -> ServerAnswerError:
    """The error for a text that neither came to its end nor ran out of tokens."""
    return ServerAnswerError(
        f"{server} ended a text with finish_reason {finish!r} instead of 'stop' or 'length': "
        "switch off tool calls and content filters on that server"
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
        raise unknown_end(finish, server)
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


def cut_by_context(generation: Generation, max_tokens: int, context: int | None) -> Generation:
    """The generation, with the end `context` if that is what cut it off before `max_tokens`.

    Args:
        generation: as it was read.
        max_tokens: what was wanted.
        context: the model's context in tokens, where the server told it. A text that ends well
            before that was cut off by a limit of the server's own, which says nothing of the
            prompt.
    """
    cut = generation.finish == "length" and generation.generated_tokens < max_tokens
    used = generation.prompt_tokens + generation.generated_tokens
    # SGLang keeps the last token of the context free.
    if cut and (context is None or used >= context - 1):
        return replace(generation, finish="context")
    return generation


def read_choice(answer: Json, route: Route, server: str) -> str:
    """The one token's text, wherever the server put it."""
    return _chosen_text(_choice(answer, server), route)


def listed(answer: Json, route: Route, server: str) -> frozenset[str]:
    """The tokens whose log-probabilities are given for the first one.

    Raises:
        ServerAnswerError: fields are missing, or have an unknown form.
    """
    return frozenset(_listed(_choice(answer, server), route, server)[1])


def read_judgement(answer: Json, route: Route, server: str) -> Judgement:
    """The log-probabilities of both verdicts. Nothing but exactly "0" and "1" counts.

    Raises:
        ConstraintIgnoredError: the answer is neither "0" nor "1".
        LogprobsMissingError: one of the two log-probabilities is not there.
        ServerAnswerError: fields are missing.
    """
    found = _verdicts(_choice(answer, server), route, server)
    return Judgement(*found, prompt_tokens(answer, server))


def read_judgements(answer: Json, route: Route, count: int, server: str) -> tuple[Judgement, ...]:
    """The answers to so many prompts in one request, in their order; as `read_judgement`.

    The server counts the tokens of all prompts together; each is given an equal part of them.
    """
    in_order = _choices(answer, count, server)
    each, rest = divmod(prompt_tokens(answer, server), count)
    return tuple(
        Judgement(*_verdicts(choice, route, server), each + (index < rest))
        for index, choice in enumerate(in_order)
    )


def read_choices(answer: Json, route: Route, count: int, server: str) -> tuple[str, ...]:
    """The one token's text of each answer to so many prompts in one request, in their order."""
    return tuple(_chosen_text(choice, route) for choice in _choices(answer, count, server))


def _choices(answer: Json, count: int, server: str) -> list[Mapping[str, Any]]:
    """The choices, one for each of so many prompts, in their order."""
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
    return [by_index[index] for index in range(count)]


def _verdicts(choice: Mapping[str, Any], route: Route, server: str) -> tuple[float, float]:
    """Log-probabilities of "0" and of "1"."""
    text = _chosen_text(choice, route)
    chosen, found = _listed(choice, route, server)
    if text not in VERDICTS or (chosen is not None and chosen != text):
        raise ignored(server, f"it answered {(chosen if text in VERDICTS else text)!r}")
    missing = [word for word in VERDICTS if found.get(word, _IMPOSSIBLE) <= _IMPOSSIBLE]
    if missing:
        raise _without(missing[0], found, server)
    return found["0"], found["1"]


def _listed(
    choice: Mapping[str, Any], route: Route, server: str
) -> tuple[str | None, dict[str, float]]:
    try:
        return _logprobs(choice, route)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ServerAnswerError(
            f"{server} answered with log-probabilities of an unknown form ({error!r})"
        ) from error


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


def _without(verdict: str, found: Mapping[str, float], server: str) -> LogprobsMissingError:
    """The error for a verdict that is not among the tokens that were listed."""
    listed = ", ".join(repr(token) for token in list(found)[:8]) or "no token at all"
    if len(found) < 2:
        return no_logprobs(server, f'of "{verdict}" (it listed {listed})')
    return LogprobsMissingError(
        f'{server} gave no log-probability of "{verdict}", which is not among the {len(found)} '
        f"tokens that it listed ({listed}): let it list the likeliest of those that the constraint "
        "leaves (vLLM: --logprobs-mode processed_logprobs)"
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
