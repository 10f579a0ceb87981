"""What is found out about a server before it is relied on: model, template, constraint, images.

Each check asks the server small questions whose right answers are known. A server that fails one
would answer real questions all the same, and its scores would mean nothing.
"""

from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from PIL import Image

from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.openai import answers, wire
from vrprm_reward.engines.openai.errors import (
    LogprobsMissingError,
    ServerAnswerError,
    ServerError,
    ServerRefusedError,
    ServersDisagreeError,
    TemplateRefusedError,
)
from vrprm_reward.engines.openai.http import PassingFailure
from vrprm_reward.engines.openai.wire import Json, Render, Route, Way
from vrprm_reward.images import FinalImage


class Ask(Protocol):
    """Sends one request to one server: method, path below the base URL, body -> JSON object.

    A path that begins with `../` leaves the `/v1`. Raises `ServerError` or `PassingFailure`.
    """

    def __call__(self, method: str, path: str, body: Json | None = None) -> Awaitable[Json]:
        """Ask."""
        ...


FIX_TEMPLATE = (
    "write the profile's template with `vrprm-reward chat-template -o chatml.jinja` and start the "
    "server with `--chat-template chatml.jinja`"
)

_NOT_UNDERSTOOD = (400, 404, 405, 422, 501)
_THINKING = "CANARY THINKING"
_ALLOWED = 2
"""Tokens that a constraint leaves. A server that lists the likeliest of these need list no more."""

_TOPS = (_ALLOWED, 20, 5)
_SKY = "What colour is a clear sky by day? Answer with one word: "


class Served(NamedTuple):
    """What a server serves."""

    model: str
    context: int | None
    """In tokens, if the server tells it."""

    adapts_to_images: bool
    """Whether it has an adapter that it puts on where a request has an image: one that is listed
    by that modality (vLLM's `--default-mm-loras`)."""


async def find_model(ask: Ask, server: str, wanted: str) -> Served:
    """The served model: its id and what else the server's list tells.

    Args:
        ask: asks the server.
        server: its name, for messages.
        wanted: a model id, or `auto` for the first one that is listed.

    Raises:
        ServersDisagreeError: the wanted model is not among those served.
        ServerAnswerError: there is no list of models and `wanted` is `auto`.
    """
    try:
        answer = await ask("GET", "/models")
    except ServerRefusedError as refusal:
        if refusal.status in _NOT_UNDERSTOOD and wanted != "auto":
            return Served(wanted, None, adapts_to_images=False)
        raise
    listed = answer.get("data")
    models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
    ids = [str(model.get("id")) for model in models]
    if wanted == "auto":
        if not ids:
            raise ServerAnswerError(f"{server} lists no model: name it (model='...')")
        wanted = ids[0]
    if wanted not in ids:
        raise ServersDisagreeError(
            f"{server} serves {', '.join(map(repr, ids)) or 'nothing'} and not {wanted!r}: all "
            "servers must serve the same model (vLLM: --served-model-name), or name one that it "
            "lists"
        )
    context = models[ids.index(wanted)].get("max_model_len")
    return Served(
        wanted,
        context if isinstance(context, int) else None,
        adapts_to_images="image" in ids and wanted != "image",
    )


async def check_template(
    ask: Ask, server: str, model: str, render: Render, thinking: tuple[str, str]
) -> None:
    """Compare the server's conversation template with the profile's on three conversations.

    By the text of the server's own token ids where it has `/tokenize` and `/detokenize` (vLLM),
    else by lengths: a conversation must be as long as the same one rendered here and sent raw.

    Raises:
        TemplateRefusedError: they differ, or the server gives no means to compare.
    """
    for prompt in _canaries(thinking):
        expected = wire.rendered(prompt, render)
        got = await _text_at_server(ask, model, prompt)
        if got is not None:
            if got != expected:
                raise _refused(server, _difference(expected, got, thinking))
            continue
        here, there = await _lengths(ask, server, model, prompt, expected)
        if here != there:
            raise _refused(
                server,
                f"a conversation of {here} tokens in the profile's template has {there} in the "
                "server's, which may delete earlier thinking or open thinking itself",
            )


def _canaries(thinking: tuple[str, str]) -> tuple[Prompt, ...]:
    """Earlier thinking; no system turn, and text in two parts; an answer that goes on."""
    notes = f"{thinking[0]}{_THINKING}\n{thinking[1]}"
    user = Message("user", ("\nCANARY USER A", " CANARY USER B\n"))
    return (
        Prompt(
            (
                Message("system", ("CANARY SYSTEM",)),
                user,
                Message("assistant", (notes,)),
                Message("user", ("CANARY USER C\n",)),
            )
        ),
        Prompt((user,)),
        Prompt(
            (user, Message("assistant", (f"{notes}\n<answer>\nStep 0: ",))),
            form="continue",
        ),
    )


def _canary_body(prompt: Prompt, model: str) -> Json:
    """As any request, but every message in parts: servers may join parts with line breaks."""
    body = wire.prompt_body(prompt, model=model)
    for message, turn in zip(body["messages"], prompt.messages, strict=True):
        if turn.role == "user":
            message["content"] = [{"type": "text", "text": part} for part in turn.parts]
    return body


async def _text_at_server(ask: Ask, model: str, prompt: Prompt) -> str | None:
    """The prompt as the server's model sees it; None where the server cannot tell."""
    try:
        tokens = (await ask("POST", "../tokenize", _canary_body(prompt, model))).get("tokens")
        if not isinstance(tokens, list):
            return None
        answer = await ask("POST", "../detokenize", {"model": model, "tokens": tokens})
    except ServerRefusedError as refusal:
        if refusal.status in _NOT_UNDERSTOOD:
            return None
        raise
    except ServerAnswerError:
        return None
    text = answer.get("prompt")
    return text if isinstance(text, str) else None


async def _lengths(
    ask: Ask, server: str, model: str, prompt: Prompt, expected: str
) -> tuple[int, int]:
    """Tokens of the rendered text sent raw, and of the conversation."""
    raw = Prompt((Message("user", (expected,)),), form="raw")
    one = wire.generation_fields(1, None)
    try:
        here = await ask(
            "POST", wire.PATHS["completions"], wire.prompt_body(raw, model=model) | one
        )
        there = await ask("POST", wire.PATHS["chat"], _canary_body(prompt, model) | one)
        return answers.prompt_tokens(here, server), answers.prompt_tokens(there, server)
    except (ServerRefusedError, ServerAnswerError) as error:
        if isinstance(error, ServerRefusedError) and error.status not in _NOT_UNDERSTOOD:
            raise
        raise _refused(
            server,
            f"it cannot be compared with the profile's ({error}); if you are sure of it, pass "
            "check_template=False",
        ) from error


def _difference(expected: str, got: str, thinking: tuple[str, str]) -> str:
    if _THINKING not in got:
        return "it deletes thinking from earlier assistant turns"
    if got.count(thinking[0]) > expected.count(thinking[0]):
        return f"it opens {thinking[0]} itself when an assistant turn begins"
    same = next(
        (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b),
        min(len(expected), len(got)),
    )
    where = max(0, same - 20)
    hint = ""
    if "CANARY USER A\n" in got:
        hint = " (vLLM: --chat-template-content-format openai)"
    return (
        f"where the profile has {expected[where : same + 40]!r} it has "
        f"{got[where : same + 40]!r}{hint}"
    )


def _refused(server: str, what: str) -> TemplateRefusedError:
    return TemplateRefusedError(
        f"the conversation template of {server} is not the profile's: {what}. {FIX_TEMPLATE}"
    )


async def find_way(ask: Ask, server: str, model: str, route: Route) -> Way:
    """How the server is made to answer nothing but 1 or 0, with both log-probabilities.

    A spelling counts as honoured when it brings about an answer that no model would give of its
    own accord: the letter Q or Z to a question about a colour. Where both are also listed as the
    likeliest two, so are both verdicts, and no more is asked for (a tokenizer with a second token
    for a digit would spoil that; those of Qwen-VL have none).

    Raises:
        ConstraintIgnoredError: no spelling is honoured.
        LogprobsMissingError: one is, but the log-probabilities of both verdicts do not come.
    """
    question = Message("user", (_SKY,))
    prompt = Prompt((question,), form="reply" if route == "chat" else "raw")
    start = wire.prompt_body(prompt, model=model)
    failures: list[str] = []
    without_logprobs: LogprobsMissingError | None = None
    for spelling in wire.SPELLINGS:
        for top in _TOPS:
            way = Way(spelling, top)
            try:
                body = start | wire.choice_fields(route, way, ("Q", "Z"))
                answer = await ask("POST", wire.PATHS[route], body)
                letter = answers.read_choice(answer, route, server)
                if letter not in ("Q", "Z"):
                    failures.append(f"{spelling} was ignored, the answer was {letter!r}")
                    break
                if top == _ALLOWED and not {"Q", "Z"} <= answers.listed(answer, route, server):
                    continue
                body = start | wire.choice_fields(route, way)
                answer = await ask("POST", wire.PATHS[route], body)
                answers.read_judgement(answer, route, server)
            except ServerRefusedError as refusal:
                if refusal.status not in (400, 422):
                    raise
                if "logprob" in refusal.words:
                    without_logprobs = answers.no_logprobs(server, f"({refusal.words[:200]})")
                failures.append(f"{spelling} was refused ({refusal.words[:100]})")
            except LogprobsMissingError as missing:
                without_logprobs = missing
            else:
                return way
    if without_logprobs is not None:
        raise without_logprobs
    raise answers.ignored(server, "; ".join(failures))


async def takes_several(
    ask: Ask, server: str, model: str, route: Route, way: Way | None
) -> Way | None:
    """How verdicts on several prompts are asked for in one request; None: not at all.

    A server that cannot is asked for one at a time, and scores just as well.

    Args:
        ask: asks the server.
        server: its name, for messages.
        model: the served model's id.
        route: whether they are conversations or rendered prompts.
        way: how one verdict is asked for, if that is known already.
    """
    texts = (_SKY, f"Quick now. {_SKY}")
    if route == "chat":
        asked = [(Message("user", (text,)),) for text in texts]
        start = wire.chats_body([Prompt(turns) for turns in asked], model=model)
        begun = Message("assistant", ("The answer is ",))
        # vLLM had the path before it could continue a message there.
        going_on = [Prompt((*turns, begun), form="continue") for turns in asked]
        bodies = (start, wire.chats_body(going_on, model=model))
    else:
        bodies = (wire.texts_body(texts, model=model),) * 2
    path = wire.SEVERAL[route]
    try:
        way = way or await find_way(ask, server, model, route)
        body = bodies[0] | wire.choice_fields(route, way, ("Q", "Z"))
        letters = answers.read_choices(await ask("POST", path, body), route, 2, server)
        body = bodies[1] | wire.choice_fields(route, way)
        answers.read_judgements(await ask("POST", path, body), route, 2, server)
    except ServerError:
        return None
    except PassingFailure as failure:
        page = failure.kind == "answer" and failure.status is not None
        if not page:  # such as a proxy has for unknown paths
            _unless_lost(failure)
        return None
    return way if set(letters) <= {"Q", "Z"} else None


async def can_name_images(ask: Ask, server: str, model: str) -> bool:
    """Whether the server finds an image by the name under which it was sent before.

    The image that is only named must count as many tokens as the one that was sent, and a name
    that was never sent must be refused: else the server overlooks what it does not know.
    """
    image = _test_image()
    one = wire.generation_fields(1, None)
    prompt = Prompt((Message("user", (image, "Describe it.")),))
    sent = wire.prompt_body(prompt, model=model, naming=True) | one
    named = wire.prompt_body(prompt, model=model, naming=True, named={image.digest}) | one
    unknown = wire.prompt_body(prompt, model=model, naming=True, named={image.digest}) | one
    unknown["messages"][0]["content"][0]["uuid"] = wire.image_name("never-sent")
    try:
        first = await ask("POST", wire.PATHS["chat"], sent)
        second = await ask("POST", wire.PATHS["chat"], named)
        if answers.prompt_tokens(first, server) != answers.prompt_tokens(second, server):
            return False
    except ServerError:
        return False
    except PassingFailure as failure:
        return _unless_lost(failure)
    try:
        await ask("POST", wire.PATHS["chat"], unknown)
    except ServerRefusedError:
        return True
    except PassingFailure as failure:
        return _unless_lost(failure)
    return False


def _unless_lost(failure: PassingFailure) -> bool:
    """False for a server that stumbles over what it is tried with; other failures go on, and
    those of one that is busy."""
    if failure.kind != "status" or failure.status in (408, 429, 502, 503, 504):
        raise failure
    return False


def _test_image() -> FinalImage:
    return FinalImage(Image.linear_gradient("L").resize((64, 64)).convert("RGB"))
