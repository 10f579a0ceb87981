"""Answers of a `vrprm-reward serve` -> scores, or the reason why there are none.

Read leniently where a newer server may say more, and not at all where it says something else.
"""

import email.utils
import time
from collections.abc import Sequence
from typing import Any

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from vrprm_reward.types import ProcessScore, Rollout, Status, Step, Usage


class _Span(BaseModel):
    start: int
    end: int


class _Usage(Usage):
    model_config = ConfigDict(extra="ignore")


class _Score(BaseModel):
    status: Status
    p_correct: tuple[float, ...] | None
    steps: tuple[_Span, ...]
    flags: tuple[str, ...] = ()
    reason: str | None = None
    detail: str | None = None
    thinking: str | None = None
    usage: _Usage = _Usage()

    def to_score(self, response: str) -> ProcessScore:
        return ProcessScore(
            status=self.status,
            p_correct=self.p_correct or (),
            steps=tuple(
                Step(text=response[span.start : span.end], start=span.start, end=span.end)
                for span in self.steps
            ),
            thinking=self.thinking,
            flags=self.flags,
            reason=self.reason,
            detail=self.detail,
            usage=Usage(**self.usage.model_dump()),
        )


class _Answer(BaseModel):
    scores: list[_Score]


def scores_of(answer: httpx2.Response, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
    """The scores in an answer with status 200; `server_answer` for all when they do not fit."""
    try:
        scores = _Answer.model_validate_json(answer.content).scores
        if len(scores) != len(rollouts):
            raise ValueError(f"{len(rollouts)} rollouts were answered by {len(scores)} scores")
        return [s.to_score(r.response) for s, r in zip(scores, rollouts, strict=True)]
    except ValueError as error:
        kind = "is not of a known form" if isinstance(error, ValidationError) else str(error)
        return [unscored("server_answer", f"the server's answer: {kind}")] * len(rollouts)


def refused_items(answer: httpx2.Response, indices: Sequence[int]) -> dict[int, ProcessScore]:
    """The rollouts that a 422 names, with its reasons; none where it names the whole request."""
    refused: dict[int, ProcessScore] = {}
    for item in _error_in(answer).get("items") or []:
        match item:
            case {"index": int(at), "code": str(code), "message": str(message)} if (
                0 <= at < len(indices) and code != "field"
            ):
                refused[indices[at]] = unscored(code, message)
            case _:
                return {}
    return refused


def _error_in(answer: httpx2.Response) -> dict[str, Any]:
    try:
        error = answer.json()["error"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


def message_of(answer: httpx2.Response) -> str:
    """What an error answer says, or its status where it says nothing."""
    message = _error_in(answer).get("message")
    return message if isinstance(message, str) else f"HTTP status {answer.status_code}"


def reason_of(status: int) -> str:
    """The reason for which rollouts stay unscored when every attempt ended with this status."""
    if status in (408, 504):
        return "server_timeout"
    return "server_overloaded" if status in (429, 503) else "server_failed"


def retry_after(answer: httpx2.Response) -> float:
    """Seconds that the server asks for: a number, or a date."""
    value = answer.headers.get("retry-after", "")
    if value.isascii() and value.isdigit() and len(value) < 9:
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def unscored(reason: str, detail: str) -> ProcessScore:
    """The score of a rollout that our side could not score."""
    return ProcessScore(status="unscored_ours", reason=reason, detail=detail)
