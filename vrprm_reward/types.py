"""The values that go in and come out: problems, rollouts, steps, scores."""

import os
from collections.abc import Iterable
from typing import Literal, Self

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vrprm_reward.errors import InputError, ResponseError

ImageSource = Image.Image | str | os.PathLike[str] | bytes
"""A PIL image, a path, a `data:` URL, an `http(s)://` URL, or the bytes of an image file."""

Status = Literal["scored", "unscored_ours", "unscored_response"]
"""`unscored_ours`: server, timeout, image, NaN. `unscored_response`: empty, too long, too many."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Problem(_Frozen):
    """A question about one or more images."""

    question: str = Field(min_length=1)
    """The question as the policy saw it; `<image>` placeholders may stand in it."""

    images: tuple[ImageSource, ...] = Field(min_length=1)
    """The images in the order the question refers to them. Never empty: a reward that is
    computed without its image is worse than none."""

    reference_answer: str | None = None
    """Shown to the reward model only when a profile says so; used by outcome rewards."""

    @field_validator("question", mode="before")
    @classmethod
    def _question_is_text(cls, question: object) -> object:
        if isinstance(question, str):
            try:
                question.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"character {error.start + 1} of the question is half of a surrogate pair, "
                    "which no text can hold: write the whole character, or \\ufffd"
                ) from error
        return question


class Step(_Frozen):
    """One step of a response: `text == response[start:end]`."""

    text: str
    """The step's text, exactly as it stands in the response."""

    start: int = Field(ge=0)
    """Index of the first character in the response (Unicode code points)."""

    end: int = Field(ge=0)
    """Index one past the last character in the response."""

    @model_validator(mode="after")
    def _span_fits_text(self) -> Self:
        if self.end - self.start != len(self.text):
            raise ValueError(
                f"the span [{self.start}, {self.end}) does not have the length of its text "
                f"({len(self.text)}): pass start and end of the text in the response"
            )
        return self


class Rollout(_Frozen):
    """A response to a problem, whole or partial, to be judged step by step."""

    problem: Problem
    """What was asked."""

    response: str
    """What the policy wrote. An empty response is allowed and comes back unscored."""

    steps: tuple[Step, ...] | None = None
    """Ready-made steps with their places in `response`; None: the response is split. `()`: there is
    nothing to judge, which comes back as `response_empty`, the response's own fault."""

    @model_validator(mode="after")
    def _steps_lie_in_response(self) -> Self:
        position = 0
        for index, step in enumerate(self.steps or ()):
            if self.response[step.start : step.end] != step.text or step.start < position:
                raise ValueError(
                    f"step {index} is not response[{step.start}:{step.end}], or overlaps the "
                    "step before it: build the steps with vrprm_reward.steps.locate_steps"
                )
            position = step.end
        return self


def checked_rollouts(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """What is to be scored, as a list: an iterator can be walked only once.

    Raises:
        InputError: something in it is no `Rollout`.
    """
    listed = list(rollouts)
    for index, rollout in enumerate(listed):
        if not isinstance(rollout, Rollout):
            raise InputError(
                f"rollouts[{index}] is of type {type(rollout).__name__}: pass a list of "
                "vrprm_reward.Rollout"
            )
    return listed


def check_is_text(response: str) -> None:
    """See that UTF-8 can hold a response.

    Raises:
        ResponseError: it has half a surrogate pair in it (`response_not_text`).
    """
    if any("\ud800" <= c <= "\udfff" for c in response):
        raise ResponseError(
            "the response holds half a surrogate pair, which is no text: decode the policy's "
            "tokens with errors='replace'",
            code="response_not_text",
        )


class Usage(_Frozen):
    """What scoring one rollout cost, in the tokenizer's tokens."""

    prompt_tokens: int = 0
    """Sum of the lengths of all prompts, image tokens included, shared prefixes counted each."""

    generated_tokens: int = 0
    """Tokens of thinking."""

    requests: int = 0
    """Engine calls: one for the thinking, then one for each judgement."""

    rounds: int = 0
    """Judgement rounds in sequence (as many as steps in lockstep, often fewer otherwise)."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
            requests=self.requests + other.requests,
            rounds=self.rounds + other.rounds,
        )


class ProcessScore(_Frozen):
    """What the reward model says of one rollout. Scored whole or not at all.

    A scored rollout has one probability for every step. An unscored one has none, and a reason:
    it is a state of its own, never a number.
    """

    status: Status
    """Whether there are scores, and if not, whose doing that is."""

    steps: tuple[Step, ...] = ()
    """The steps that were judged, with their places in the response."""

    p_correct: tuple[float, ...] = ()
    """Per step, the probability in [0, 1] that it is correct. Empty unless scored."""

    thinking: str | None = None
    """What the reward model wrote before it judged; None where its profile does not think."""

    flags: tuple[str, ...] = ()
    """Things worth knowing about a score, such as `thinking_truncated`."""

    reason: str | None = None
    """Why there is no score: a stable short name, such as `image_missing`. None when scored."""

    detail: str | None = None
    """The reason in a sentence for a person. None when scored."""

    usage: Usage = Usage()
    """What it cost."""

    @property
    def scored(self) -> bool:
        """Whether `p_correct` has a probability for every step."""
        return self.status == "scored"

    @property
    def judgements(self) -> tuple[int, ...]:
        """Per step, 1 where `p_correct` is at least 0.5, else 0."""
        return tuple(int(p >= 0.5) for p in self.p_correct)

    @model_validator(mode="after")
    def _whole_or_not_at_all(self) -> Self:
        if self.scored:
            if len(self.p_correct) != len(self.steps) or not self.steps:
                raise ValueError(
                    f"a scored rollout needs one probability per step: {len(self.p_correct)} "
                    f"probabilities, {len(self.steps)} steps"
                )
            if not all(0.0 <= p <= 1.0 for p in self.p_correct):
                raise ValueError(f"probabilities lie in [0, 1]: {self.p_correct}")
        elif self.p_correct or not self.reason:
            raise ValueError(f"an unscored rollout has a reason and no probabilities: {self!r}")
        return self
