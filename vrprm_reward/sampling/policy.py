"""Who proposes the next step: anything that satisfies `Policy`, such as a model behind a server."""

import asyncio
import functools
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from vrprm_reward.connections import bearer_token, proxies_of_the_environment
from vrprm_reward.engines.openai.answers import raise_if_broken_off, unknown_end
from vrprm_reward.engines.openai.errors import ServerAnswerError
from vrprm_reward.engines.openai.http import PassingFailure, call
from vrprm_reward.errors import InputError
from vrprm_reward.images import DEFAULT_SETTINGS, ImageSettings
from vrprm_reward.images.encoded import encoded_image
from vrprm_reward.types import Problem

SEPARATOR = "\n\n"
"""What stands between the steps of a sampled response."""


@dataclass(frozen=True)
class Continuation:
    """One proposal."""

    text: str
    """The next step, without separator. Blank, if the response ends where it is."""

    finished: bool
    """Whether the response ends with this step."""

    tokens: int
    """Tokens that were generated for it."""


class Policy(Protocol):
    """Proposes next steps."""

    @property
    def identity(self) -> str:
        """Names the policy and all its settings: equal names propose alike under equal seeds."""
        ...

    async def propose(
        self, problem: Problem, prefix: tuple[str, ...], n: int, *, seed: int
    ) -> Sequence[Continuation]:
        """`n` independent proposals for the step after `prefix`.

        Args:
            problem: what is asked; policies never see its reference answer.
            prefix: the steps so far, without separators.
            n: how many.
            seed: a policy that can be deterministic is so under it.
        """
        ...


@dataclass(frozen=True)
class OpenAIPolicySettings:
    """How a policy behind an OpenAI-compatible server is asked. The defaults suit vLLM."""

    url: str
    """Such as `http://127.0.0.1:8000/v1`."""

    model: str
    """Its name on the server."""

    api_key: str | None = field(default=None, repr=False)
    system: str | None = None
    """System prompt, if the policy is to have one."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 512
    """Most tokens of one step; a longer one is rejected."""

    timeout: float = 300.0
    """Seconds for one attempt."""

    attempts: int = 4
    """Most attempts for one request, when failures may pass."""


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: reading them for every request would take longer than many a request."""
    return ssl.create_default_context()


class OpenAIPolicy:
    """A policy behind vLLM, SGLang or another OpenAI-compatible server.

    The response so far is sent as the beginning of the assistant's turn, to be gone on with
    (`continue_final_message`), up to the next separator. Images stand before the question.

    Args:
        settings: server, model, sampling.
        images: from where images may come.

    Raises:
        InputError: the API key is not printable ASCII.
    """

    def __init__(
        self, settings: OpenAIPolicySettings, images: ImageSettings = DEFAULT_SETTINGS
    ) -> None:
        self._settings = settings
        self._images = images
        self._key = bearer_token(settings.api_key, "the policy's API key")

    @property
    def identity(self) -> str:
        """Model and sampling; the same model on another server counts as the same."""
        s = self._settings
        return f"{s.model} {s.system!r} {s.temperature} {s.top_p} {s.max_tokens}"

    async def propose(
        self, problem: Problem, prefix: tuple[str, ...], n: int, *, seed: int
    ) -> list[Continuation]:
        """`n` next steps, from one request.

        Raises:
            ServerError: no usable answer after all attempts, or the server does not say why it
                stopped.
        """
        body = await asyncio.to_thread(self._body, problem, prefix, n, seed)
        answer = await self._ask(body)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != n:
            raise ServerAnswerError(
                f"{self._settings.url} gave "
                f"{len(choices) if isinstance(choices, list) else 'no'} choices where n = {n} were "
                "asked for: use a server that supports n, such as vLLM"
            )
        usage = answer.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or 0)
        shares = [tokens // n + (index < tokens % n) for index in range(n)]
        return [self._read(choice, share) for choice, share in zip(choices, shares, strict=True)]

    def _body(self, problem: Problem, prefix: tuple[str, ...], n: int, seed: int) -> dict[str, Any]:
        s = self._settings
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": encoded_image(i, self._images).data_url()}}
            for i in problem.images
        ]
        question = problem.question.replace("<image>", "").strip()
        messages: list[dict[str, Any]] = []
        if s.system is not None:
            messages.append({"role": "system", "content": s.system})
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
        body = {
            "model": s.model,
            "messages": messages,
            "n": n,
            "seed": seed,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "max_tokens": s.max_tokens,
            "stop": [SEPARATOR],
            "include_stop_str_in_output": True,
        }
        if prefix:
            begun = "".join(step + SEPARATOR for step in prefix)
            messages.append({"role": "assistant", "content": begun})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        s = self._settings
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        with proxies_of_the_environment():
            opened = httpx2.AsyncClient(timeout=s.timeout, headers=headers, verify=_certificates())
        async with opened as client:
            for attempt in range(1, s.attempts + 1):
                try:
                    answer = await call(
                        client, s.url, "POST", f"{s.url.rstrip('/')}/chat/completions", body
                    )
                    raise_if_broken_off(answer, s.url)
                    return answer
                except PassingFailure as failure:
                    if attempt == s.attempts:
                        raise failure.final(attempt) from failure
                    pause = 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
                    await asyncio.sleep(max(pause, failure.wait or 0.0))
        raise InputError(f"attempts = {s.attempts} is less than 1")

    def _read(self, choice: Any, tokens: int) -> Continuation:
        """One choice: did it stop at a separator, at the end of the response, or not at all?"""
        try:
            text, reason = choice["message"]["content"] or "", choice["finish_reason"]
        except (KeyError, TypeError) as error:
            raise ServerAnswerError(
                f"{self._settings.url} gave a choice without message or finish_reason: is this an "
                "OpenAI-compatible chat server?"
            ) from error
        if reason == "length":
            return Continuation("", finished=False, tokens=tokens)
        if reason != "stop":
            raise unknown_end(reason, self._settings.url)
        stopped_at = choice.get("stop_reason", choice.get("matched_stop"))
        cut = text.endswith(SEPARATOR) or stopped_at == SEPARATOR
        if not cut and "stop_reason" not in choice and "matched_stop" not in choice:
            raise ServerAnswerError(
                f"{self._settings.url} does not say whether a step ended or the whole response: "
                "use a server that gives stop_reason (vLLM) or matched_stop (SGLang)"
            )
        return Continuation(text.strip("\n"), finished=not cut, tokens=tokens)
