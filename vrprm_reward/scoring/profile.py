"""How a checkpoint is spoken to: the profile, read from TOML and checked."""

import re
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vrprm_reward.errors import ProfileError
from vrprm_reward.images import PixelLimits

FrameName = Literal[
    "two_stage", "multi_turn", "answer_block", "score_json", "score_list", "boxed_continuation"
]
SectionName = Literal["question", "reference", "solution", "count", "task"]

_MAX_EXTENDS = 8


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sections(_Table):
    """The marker lines that open the sections of a prompt or of an answer."""

    question: str = "[Question]"
    reference: str = "[Reference Answer]"
    solution: str = "[Candidate Solution]"
    count: str = "[Number of Steps]"
    task: str = "[Task]"
    thinking: str = "[Global Thinking]"
    history: str = "[Previous Step Judgments]"
    current: str = "[Current Step]"
    analysis: str = "[Step Analysis]"
    verdicts: str = "[Step judgment]"
    scores: str = "[Final Scores]"
    preliminary: str = "[Preliminary thinking]"
    judgment: str = "[Final Judgment]"

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker line. Untrusted text never gets a line that is nothing but one of them."""
        return tuple(self.model_dump().values())

    @model_validator(mode="after")
    def _markers_are_distinct_lines(self) -> Self:
        if any(not marker.strip() or len(marker.splitlines()) > 1 for marker in self.markers):
            raise ValueError("a section marker is one non-blank line")
        if len(set(self.markers)) < len(self.markers):
            raise ValueError(f"section markers must differ from one another: {self.markers}")
        return self


class Opening(_Table):
    """The text that shows the problem and the solution."""

    order: tuple[SectionName, ...] = ("question", "reference", "solution")
    """Sections in the order in which they stand. `reference` is left out unless it is shown."""

    gap: str = "\n"
    """What stands between two sections."""

    end: str = "\n"
    """What ends the text of a request that stops after these sections."""

    @model_validator(mode="after")
    def _shows_what_is_judged(self) -> Self:
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"opening.order names a section twice: {self.order}")
        for needed in ("question", "solution"):
            if needed not in self.order:
                raise ValueError(f"opening.order lacks {needed!r}: it is needed to judge anything")
        return self


class Steps(_Table):
    """How steps are written into a prompt."""

    first_number: int = Field(default=0, ge=0, le=1)
    """Number of the first step. VRPRM counts from 0."""

    form: Literal["numbered", "split", "numbered_split"] = "numbered"
    """In the solution: a line `Step n: text` each; bare texts joined by `<step split>`; or
    `Step n: text` each, joined by `<step split>`."""

    label: Literal["when_missing", "always"] = "when_missing"
    """Whether `Step n:` is left out before a text that already begins with it."""

    strip: bool = False
    """Whether white space around a step is dropped."""

    max_steps: int = Field(default=128, ge=1)
    """A response with more steps is unscored (`too_many_steps`)."""


class Thinking(_Table):
    """The one generated text that comes before the judgements."""

    system: str = ""
    """System prompt of the thinking request; empty: no system turn."""

    max_tokens: int = Field(default=1024, ge=1)
    """Bound on generated tokens."""

    opening: str = Field(default="<think>", min_length=1)
    closing: str = Field(default="</think>", min_length=1)

    unmarked: Literal["keep", "drop"] = "keep"
    """What generated text without `closing` is: thinking as a whole, or no thinking at all."""

    truncated: Literal["judge", "unscore"] = "judge"
    """What becomes of a rollout whose thinking hit `max_tokens`: it is judged and flagged
    (`thinking_truncated`), or left unscored. One whose thinking hit the end of the model's context
    before that is `prompt_too_long` in any case."""

    @model_validator(mode="after")
    def _delimiters_differ(self) -> Self:
        if self.opening == self.closing:
            raise ValueError(f"opening and closing are both {self.opening!r}: they must differ")
        return self


class Judging(_Table):
    """How one step is asked about."""

    system: str = ""
    """System prompt of a judgement, and of a whole conversation without thinking."""

    request: str = ""
    """The sentence that ends the prompt and asks for exactly one token, 1 or 0."""

    history_line: str = "Step {number}: \\boxed{{{verdict}}}"
    """One earlier judgement; a format string over `number` and `verdict`."""

    empty_history: str = "None"
    """What stands in place of the history at the first step."""

    show_history: bool = True
    """Whether a judgement is told the judgements before it."""

    images: Literal["never", "each"] = "never"
    """Whether the images stand in every judgement of a frame with separate requests."""

    analysis_line: str = r"^[ \t*-]*Step\s*(\d+)\s*:.*\\boxed\{(?=[01]\})"
    """Frame score_json: a regular expression (multi-line mode) from the start of an analysis line
    to the place of its verdict, with one group, the step's number."""

    @model_validator(mode="after")
    def _analysis_line_finds_a_number(self) -> Self:
        try:
            groups = re.compile(self.analysis_line, re.MULTILINE).groups
        except re.error as error:
            raise ValueError(f"analysis_line is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"analysis_line needs one group, the step's number; it has {groups}")
        return self

    @model_validator(mode="after")
    def _history_line_has_both_fields(self) -> Self:
        try:
            lines = {self.history_line.format(number=n, verdict=v) for n in (3, 4) for v in (0, 1)}
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"judge.history_line is not a usable format string: {error}") from None
        if len(lines) < 4:
            raise ValueError("judge.history_line must contain {number} and {verdict}")
        if any("\n" in line for line in lines):
            raise ValueError("judge.history_line must be one line")
        return self


class Profile(_Table):
    """How a checkpoint is spoken to. Every field is a key of the TOML file."""

    name: str
    description: str = ""
    frame: FrameName
    """Where the verdicts stand; see `vrprm_reward.scoring.frames`."""

    images: Literal["before", "after", "inline"] = "after"
    """Whether the images of a user turn stand before its text, after it, or in the question at
    its `<image>` placeholders (those that have none: before). `<image>` anywhere else is text."""

    placeholder: Literal["drop", "keep", "canonical"] = "drop"
    """What becomes of `<image>` in a question when images are not inline: it is dropped or kept.
    `canonical`, for inline images, is how VRPRM's RL data were made: the question is stripped and
    gets exactly one `<image>` for each image, missing ones on a line of their own at its start;
    in steps, `<image>` becomes the word."""

    show_reference: bool = False
    """Whether the reference answer is shown to the reward model. Such scores are not comparable
    with those of a model that has to find the answer itself."""

    task: str = ""
    """Text of the section `task`, where `opening.order` names it."""

    conversation: str
    """Jinja source of the conversation template, in transformers' chat template dialect.

    It is the profile's and not the checkpoint's, because templates of thinking models delete
    thinking from earlier turns and open `<think>` themselves. `vrprm_reward.scoring.template` has
    the requirements as checks. Should a server write the opening delimiter all the same, thinking
    is still read right: all up to the closing one."""

    pixels: PixelLimits = PixelLimits()
    sections: Sections = Sections()
    opening: Opening = Opening()
    steps: Steps = Steps()
    think: Thinking | None = None
    judge: Judging = Judging()

    @model_validator(mode="after")
    def _frame_has_what_it_needs(self) -> Self:
        order = self.opening.order
        if self.images == "inline" and order[0] != "question":
            raise ValueError(
                "images = 'inline' needs the question first in opening.order: what a policy wrote "
                "must not stand before the place of an image"
            )
        if self.frame == "score_json" and self.think is None:
            raise ValueError("frame score_json judges generated lines: it needs a [think] table")
        if self.frame == "score_list" and self.think is not None:
            raise ValueError("frame score_list answers at once: it takes no [think] table")
        if self.frame in ("two_stage", "multi_turn") and not self.judge.request:
            raise ValueError(f"frame {self.frame} needs judge.request, the sentence that asks")
        if "task" in self.opening.order and not self.task:
            raise ValueError("opening.order names 'task' but the key task is empty")
        if self.show_reference and "reference" not in self.opening.order:
            raise ValueError("show_reference is true but opening.order lacks 'reference'")
        return self


def load_profile(source: str | Path) -> Profile:
    """Read a profile: the name of a built-in one (`builtin_profiles()`), or a TOML file.

    A file may name another profile in `extends` (a packaged one, or a path relative to the file)
    and give only the keys that differ; `think = false` does without the other's table. A
    `conversation` that ends in `.jinja` names a file beside the profile.

    Raises:
        ProfileError: no such profile, not TOML, or a key that does not fit; names the key.
    """
    table = _read_table(source, depth=0)
    if table.get("think") is False:
        del table["think"]
    try:
        return Profile.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'profile'}: {item['msg']}"
            for item in error.errors()
        )
        raise ProfileError(f"profile {str(source)!r}: {problems}") from error


def _read_table(source: str | Path, depth: int) -> dict[str, Any]:
    folder: Traversable = resources.files("vrprm_reward.scoring") / "profiles"
    if isinstance(source, str) and source in builtin_profiles():
        text = (folder / f"{source}.toml").read_text(encoding="utf-8")
    else:
        path = Path(source)
        if not path.is_file():
            raise ProfileError(
                f"no profile {str(source)!r}: pass the path of a TOML file or one of "
                f"{', '.join(builtin_profiles())}"
            )
        folder = path.parent
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"profile {str(source)!r} cannot be read: {error}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {str(source)!r} is not valid TOML: {error}") from error
    template = table.get("conversation")
    if isinstance(template, str) and template.endswith(".jinja"):
        try:
            table["conversation"] = (folder / template).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(
                f"profile {str(source)!r}: conversation: no readable file {template!r} beside the "
                "profile; write the template there or into the key itself"
            ) from error
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise ProfileError(
            f"profile {str(source)!r}: extends is {parent!r}: it takes the name of a packaged "
            "profile or the path of a file, relative to this one"
        )
    if depth == _MAX_EXTENDS:
        raise ProfileError(f"profile {str(source)!r}: extends goes round in a circle")
    if parent not in builtin_profiles() and isinstance(folder, Path):
        return _merged(_read_table(folder / parent, depth + 1), table)
    return _merged(_read_table(parent, depth + 1), table)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if both_tables else value
    return merged


def packaged_conversation() -> str:
    """The conversation template of the packaged profiles: plain ChatML with Qwen's image marks."""
    folder = resources.files("vrprm_reward.scoring") / "profiles"
    return (folder / "chatml.jinja").read_text(encoding="utf-8")


def builtin_profiles() -> tuple[str, ...]:
    """Names of the packaged profiles."""
    files = (resources.files("vrprm_reward.scoring") / "profiles").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))
