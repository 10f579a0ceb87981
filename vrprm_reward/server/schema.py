"""What goes over the wire: requests, answers and errors, typed for the OpenAPI description."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vrprm_reward.types import ProcessScore, Status, Usage

_NAME_LENGTH = 100
_MAX_ITEMS = 16

Identifier = Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Span(_Request):
    """A stretch of the response, in Unicode code points: `response[start:end]`."""

    start: int = Field(ge=0, lt=2**31)
    """Index of the first character."""

    end: int = Field(ge=0, lt=2**31)
    """Index one past the last character."""


class RolloutItem(_Request):
    """One rollout to be scored."""

    id: Identifier | None = None
    """Comes back with the score."""

    question: str = Field(min_length=1)
    """The question as the policy saw it; `<image>` placeholders may stand in it."""

    images: list[str] = Field(min_length=1)
    """`data:` URLs; paths and http(s) URLs where the server allows them."""

    response: str
    """What the policy wrote, whole or partial."""

    steps: list[str] | list[Span] | None = None
    """Ready-made steps, as texts or spans of the response; without them it is split."""

    reference_answer: str | None = None
    """Shown to the reward model only where its profile says so."""


class ScoreRequest(_Request):
    """A batch of rollouts, each scored by itself."""

    rollouts: list[RolloutItem]
    """Any mix of problems, lengths and numbers of images."""

    thinking: bool = False
    """Whether to send back what the reward model wrote before it judged."""


class ScoreItem(BaseModel):
    """What the reward model says of one rollout."""

    id: str | int | None = None
    """As in the request."""

    status: Status
    """`unscored_ours`: server, timeout, image. `unscored_response`: the response's own fault."""

    p_correct: list[float] | None
    """Per step, the probability in [0, 1] that it is correct; null unless scored."""

    steps: list[Span]
    """The steps that were judged, as spans of the response."""

    flags: list[str]
    """Things worth knowing about a score, such as `thinking_truncated`."""

    reason: str | None
    """Why there is no score: a stable short name. Null when scored."""

    detail: str | None
    """The reason in a sentence. Null when scored."""

    thinking: str | None = None
    """What the reward model wrote; null unless asked for."""

    usage: Usage
    """What it cost, in tokens."""


class ScoreResponse(BaseModel):
    """Scores in the order of the rollouts."""

    scores: list[ScoreItem]
    """One for each rollout."""


class RewardRequest(BaseModel):
    """What OpenRLHF's remote reward model client posts. Other keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    query: list[str]
    """Prompt and response as one text, special tokens included."""

    prompts: list[str]
    """The prompt alone; image tokens are not expanded here."""

    labels: list[Any]
    """For each, an object, or its JSON text, with `question`, `images` and perhaps `answer`."""


class RewardResponse(BaseModel):
    """What OpenRLHF reads: lists of one number for each query."""

    rewards: list[float]
    """Mean of `p_correct`; the configured value where there is no score."""

    scores: list[float]
    """The same, for dynamic filtering."""

    extra_logs: dict[str, list[float]]
    """Always the same keys, all of them numbers."""


class ErrorItem(BaseModel):
    """One thing that is wrong with a request."""

    index: int | None
    """Index of the rollout, or null when it concerns the whole request."""

    field: str
    """Name of the offending field."""

    code: str
    """A stable short name."""

    message: str
    """What is wrong and what to do."""


class ErrorInfo(BaseModel):
    """Why a request was refused."""

    code: str
    """A stable short name."""

    message: str
    """What is wrong and what to do."""

    items: list[ErrorItem]
    """The offending places, where there are any; at most 16."""


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorInfo
    """What went wrong."""


class StateBody(BaseModel):
    """The body of `/health` and `/ready`."""

    status: Literal["alive", "ready", "loading", "draining", "not_answering"]
    """One word."""


class Refusal(Exception):  # noqa: N818  an answer, not a failure
    """Ends a request with an error answer.

    Args:
        status: HTTP status code.
        code: stable short name.
        message: what is wrong and what to do; goes to the client as it is.
        items: the offending places.
        retry_after: seconds for the Retry-After header.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        items: list[ErrorItem] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.body = ErrorBody(
            error=ErrorInfo(code=code, message=message, items=(items or [])[:_MAX_ITEMS])
        )


_TYPES = {
    "missing": "missing",
    "extra_forbidden": "unknown: check its spelling, or leave it out",
    "string_type": "not a string",
    "list_type": "not a list",
    "int_type": "not a whole number",
    "bool_type": "not true or false",
    "string_too_long": "too long",
    "string_too_short": "empty",
    "too_short": "empty: give at least one",
    "model_type": "not an object",
    "dict_type": "not an object",
    "greater_than_equal": "too small",
    "less_than": "too large",
}


def refusal_of(error: ValidationError) -> Refusal:
    """A 422 that names every offending place, in words of our own and without their values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(each["type"] == "json_invalid" for each in found):
        return Refusal(422, "json", "the body is not JSON, or is nested too deeply")
    items: list[ErrorItem] = []
    for each in found:
        index, field = _place(each["loc"])
        what = _TYPES.get(each["type"], "not of a known form")
        if not _OF_AN_ID.isdisjoint(each["loc"]):
            what = _WRONG_ID
        item = ErrorItem(index=index, field=field, code="field", message=what)
        if item not in items:  # a union has an error for each of its kinds
            items.append(item)
        if len(items) == _MAX_ITEMS:
            break
    return Refusal(422, "fields", "fields of the request are not as described", items=items)


_OF_AN_ID = frozenset({"constrained-str", "constrained-int"})
"""Pydantic's names of the kinds of an `Identifier`."""

_KINDS = _OF_AN_ID | {"str", "int"}
_WRONG_ID = "neither a string of at most 200 characters nor a whole number of 64 bits"


def _place(loc: tuple[int | str, ...]) -> tuple[int | None, str]:
    index = None
    if len(loc) > 1 and loc[0] in ("rollouts", "query", "prompts", "labels"):
        index = loc[1] if isinstance(loc[1], int) else None
        loc = loc[2:] or loc[:1]
    # Names of types stand in the place where a union was tried.
    parts = [p for p in loc if not (isinstance(p, str) and ("[" in p or p in _KINDS))]
    name = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
    return index, printable(name) or "body"


def printable(text: str) -> str:
    """A short text of the client's, fit to be shown in an error."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= _NAME_LENGTH else f"{shown[:_NAME_LENGTH]}…"


_DETAILS = {
    "image_missing": "An image is not there, or cannot be read.",
    "image_format": "An image is corrupt, or not of an allowed format.",
    "image_limit": "An image is over a limit of this server.",
    "image_source": "An image comes from a place that this server does not read.",
    "engine_closed": "The server is going down.",
    "non_finite_logits": "The reward model answered with something that is no number.",
    "prompt_mismatch": "The query does not begin with its prompt.",
    "server_timeout": "The server did not get to this rollout in time.",
}
_OWN_WORDS = {
    "response_empty",
    "too_many_steps",
    "response_too_long",
    "prompt_too_long",
    "problem_too_long",
}
"""Reasons whose details hold nothing but numbers and names of settings."""


def score_item(
    score: ProcessScore, identifier: str | int | None = None, *, thinking: bool
) -> ScoreItem:
    """A score for the wire. Details that may hold paths or texts of libraries are replaced."""
    reason, detail = score.reason, None
    if reason is not None:
        reason = safe_name(reason)
        detail = score.detail if reason in _OWN_WORDS else None
        detail = detail or _DETAILS.get(reason, "It could not be scored; see the server's log.")
    return ScoreItem(
        id=identifier,
        status=score.status,
        p_correct=list(score.p_correct) if score.scored else None,
        steps=[Span(start=step.start, end=step.end) for step in score.steps],
        flags=[safe_name(flag) for flag in score.flags],
        reason=reason,
        detail=detail,
        thinking=encodable(score.thinking) if thinking and score.thinking is not None else None,
        usage=score.usage,
    )


def safe_name(name: str) -> str:
    """A reason or a flag, if it looks like one: a name and not a message."""
    return name if name.isascii() and name.isidentifier() and len(name) <= 40 else "unexpected"


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs replaced, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
