"""What the OpenAI-compatible server of the tests answers; `openai_server` puts it on a socket.

Its model is two functions of the conversation's text (as `tests.scoring.doubles.shown` writes it);
its tokens are characters.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

IMAGE_TOKENS = 7
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n|\Z)", re.DOTALL)


@dataclass
class FakeModel:
    """Answers requests; its behaviours can be switched."""

    judge: Callable[[str], tuple[float, float]] = lambda text: (-2.0, -0.1)
    """Text of a prompt -> raw log-probabilities of "0" and "1"."""

    thinking: str = "<think>Looks fine.</think>"
    """What is generated, unless a judgement is asked for."""

    model: str = "vrprm-test"
    honours: tuple[str, ...] = ("structured_outputs",)
    """Which of `structured_outputs`, `guided_choice`, `regex` constrain; others are ignored."""

    strict: bool = False
    """Whether fields that are not honoured are refused instead of ignored."""

    unconstrained: str = "The"
    """The token that comes where nothing constrains."""

    logprobs: str = "renormalised"
    """`renormalised`, `raw`, `none`, `chosen` (only the chosen token), `spaced` (" 1")."""

    max_logprobs: int = 20
    template: str = "plain"
    """`plain`, `strips` (earlier thinking), `opens` (<think> in a new turn), `joins` (parts with
    line breaks)."""

    tokenizes: bool = True
    """Whether it has /tokenize and /detokenize."""

    completes: bool = True
    """Whether it has /v1/completions."""

    lists: bool = False
    """Whether /v1/completions takes a list of prompts; the answers come last one first."""

    chats: bool = False
    """Whether it has /v1/chat/completions/batch; the answers come last one first."""

    names_images: bool = False
    """Whether an image may be named by `uuid`. If not, an image without data is overlooked."""

    context: int | None = None
    api_key: str | None = None
    reasoning_field: str | None = None
    """Name of a message field that thinking is moved to, as a reasoning parser does."""

    trims_stop: bool = False
    images: dict[str, str] = field(default_factory=dict)
    """Named images that it keeps."""

    def reply(self, path: str, request: dict, head: str) -> tuple[int, Any]:
        """Status and body of the answer to a request."""
        if self.api_key and f"Bearer {self.api_key}" not in head:
            return 401, {"error": {"message": "wrong key"}}
        if path == "/v1/models":
            entry = {"id": self.model, "object": "model"}
            if self.context is not None:
                entry["max_model_len"] = self.context
            return 200, {"object": "list", "data": [entry]}
        if path == "/tokenize" and self.tokenizes:
            tokens = [ord(c) for c in self._prompt_text(request)]
            return 200, {"tokens": tokens, "count": len(tokens)}
        if path == "/detokenize" and self.tokenizes:
            return 200, {"prompt": "".join(map(chr, request["tokens"]))}
        paths = {
            "/v1/chat/completions": True,
            "/v1/completions": self.completes,
            "/v1/chat/completions/batch": self.chats,
        }
        if paths.get(path):
            if request["model"] != self.model:
                return 404, {"error": {"message": f"no model {request['model']}"}}
            try:
                return self._complete_any(request)
            except _BadRequestError as error:
                return 400, {"error": {"message": str(error)}}
        return 404, {"detail": "Not Found"}

    # The conversation template.

    def _parts(self, message: dict) -> list[str]:
        if isinstance(message["content"], str):
            return [message["content"]]
        return [self._part(part) for part in message["content"]]

    def _part(self, part: dict) -> str:
        if part["type"] == "text":
            return part["text"]
        name = part.get("uuid")
        if part["image_url"] is not None:
            if self.names_images and name:
                self.images[name] = part["image_url"]["url"]
            return "<IMAGE>"
        if not self.names_images:
            return ""
        if name not in self.images:
            raise _BadRequestError("Cache miss for image at index 0 but data is not provided.")
        return "<IMAGE>"

    def _prompt_text(self, request: dict) -> str:
        """The prompt as the model gets it."""
        if "prompt" in request:
            return request["prompt"]
        text = ""
        messages = request["messages"]
        for index, message in enumerate(messages):
            content = ("\n" if self.template == "joins" else "").join(self._parts(message))
            last = index == len(messages) - 1
            if self.template == "strips" and message["role"] == "assistant" and not last:
                content = re.sub(r"<think>.*?</think>\n*", "", content, flags=re.DOTALL)
            text += f"<|im_start|>{message['role']}\n{content}<|im_end|>\n"
        if request.get("continue_final_message"):
            return text.removesuffix("<|im_end|>\n")
        text += "<|im_start|>assistant\n"
        return text + ("<think>\n" if self.template == "opens" else "")

    def _shown(self, request: dict) -> str:
        """The conversation as the test double of an engine shows it."""
        if "prompt" in request:
            turns = _TURN.findall(request["prompt"]) or [("user", request["prompt"])]
            return "\n".join(f"{role}: {text}" for role, text in turns if text)
        return "\n".join(f"{m['role']}: {''.join(self._parts(m))}" for m in request["messages"])

    # Completions.

    def _complete_any(self, request: dict) -> tuple[int, Any]:
        for key, several in (("prompt", self.lists), ("messages", self.chats)):
            asked = request.get(key)
            if isinstance(asked, list) and not isinstance(asked[0], dict):
                if not several:
                    raise _BadRequestError(f"{key}: Input should be a valid string")
                return self._complete_several([{**request, key: one} for one in asked])
        return self._complete(request)

    def _complete(self, request: dict) -> tuple[int, Any]:
        prompt = self._prompt_text(request).replace("<IMAGE>", "i" * IMAGE_TOKENS)
        limit, wanted = self.context, request["max_tokens"]
        if limit is not None and len(prompt) + wanted > limit:
            raise _BadRequestError(
                f"This model's maximum context length is {limit} tokens. However, you requested "
                f"{wanted} output tokens and your prompt contains {len(prompt)} input tokens, for "
                f"a total of {len(prompt) + wanted} tokens."
            )
        words = self._allowed(request)
        chat = "messages" in request
        asks_token = wanted == 1 and request.get("logprobs")
        if asks_token:
            text, listed = self._one_token(request, words)
            choice = {"finish_reason": "length", "logprobs": self._logprobs(chat, text, listed)}
        else:
            text, finish, stop = self._generate(request, wanted)
            choice = {"finish_reason": finish, "stop_reason": stop}
        if chat:
            choice["message"] = self._message(text, asks_token)
        else:
            choice["text"] = text
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        return 200, {"choices": [choice], "usage": usage}

    def _complete_several(self, requests: list[dict]) -> tuple[int, Any]:
        answers = [self._complete(request)[1] for request in requests]
        choices = [answer["choices"][0] | {"index": i} for i, answer in enumerate(answers)]
        counts = ("prompt_tokens", "completion_tokens")
        usage = {key: sum(answer["usage"][key] for answer in answers) for key in counts}
        return 200, {"choices": choices[::-1], "usage": usage}

    def _generate(self, request: dict, wanted: int) -> tuple[str, str, str | None]:
        text, stop = self.thinking, (request.get("stop") or [None])[0]
        if stop and stop in text:
            end = text.index(stop) + (0 if self.trims_stop else len(stop))
            text = text[:end]
        else:
            stop = None
        if len(text) > wanted:
            return text[:wanted], "length", None
        return text, "stop", stop

    def _message(self, text: str, asks_token: bool) -> dict:
        if self.reasoning_field is None or asks_token:
            return {"role": "assistant", "content": text}
        inner, closed, rest = text.removeprefix("<think>").partition("</think>")
        return {
            "role": "assistant",
            self.reasoning_field: inner,
            "content": (rest or None) if closed else None,
        }

    def _allowed(self, request: dict) -> list[str] | None:
        asked = {
            "structured_outputs": (request.get("structured_outputs") or {}).get("choice"),
            "guided_choice": request.get("guided_choice"),
            "regex": list(request["regex"][1:-1]) if "regex" in request else None,
        }
        for spelling, words in asked.items():
            if words is not None and spelling in self.honours:
                return words
            if words is not None and self.strict:
                raise _BadRequestError(f"Extra inputs are not permitted: {spelling}")
        return None

    def _one_token(self, request: dict, words: list[str] | None):
        top = request.get("top_logprobs") or request.get("logprobs")
        if top > self.max_logprobs:
            raise _BadRequestError(f"Requested sample logprobs of {top}, which is too many")
        l0, l1 = self.judge(self._shown(request))
        raw = {"0": l0, "1": l1, self.unconstrained: -0.7, "Q": -9.0, "Z": -9.5}
        if words is None:
            return self.unconstrained, raw
        allowed = {word: raw[word] for word in words}
        best = max(allowed, key=allowed.__getitem__)
        if self.logprobs == "raw":
            likeliest = sorted(raw, key=raw.__getitem__, reverse=True)[:top]
            return best, {word: raw[word] for word in (*likeliest, best)}
        total = math.log(sum(math.exp(value) for value in allowed.values()))
        return best, {word: value - total for word, value in allowed.items()}

    def _logprobs(self, chat: bool, chosen: str, listed: dict[str, float]) -> Any:
        if self.logprobs == "none":
            return None
        if self.logprobs == "chosen":
            listed = {chosen: listed[chosen]}
        if self.logprobs == "spaced":
            listed = {f" {token}" if token != chosen else token: p for token, p in listed.items()}
        if not chat:
            return {
                "tokens": [chosen],
                "token_logprobs": [listed[chosen]],
                "top_logprobs": [listed],
            }
        entries = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in listed.items()]
        own = {"token": chosen, "logprob": listed[chosen], "bytes": list(chosen.encode())}
        return {"content": [own | {"top_logprobs": entries}]}


class _BadRequestError(Exception):
    pass
