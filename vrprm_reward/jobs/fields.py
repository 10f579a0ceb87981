"""The checks on one row of an input file: what is missing, of the wrong type or not there."""

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vrprm_reward.errors import ImageSourceError, RowError, StepError
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.urls import path_of_file_url
from vrprm_reward.steps import join_steps, locate_steps
from vrprm_reward.types import Problem, Step

_SCHEME = re.compile(r"(data:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_KINDS = {
    bool: "true or false",
    str: "a string",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}


def json_object(raw: bytes, line: int) -> dict[str, Any]:
    """One line of a file, in UTF-8, as an object. Raises `RowError` where it is none."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError(
            f"byte {error.start + 1} is not UTF-8: save the file as UTF-8", line=line
        ) from error
    except json.JSONDecodeError as error:
        raise RowError(
            f"not JSON ({error.msg} at character {error.pos + 1}): write one object per line",
            line=line,
        ) from error
    except (RecursionError, ValueError) as error:
        raise RowError("nested too deeply, or a number too long: simplify it", line=line) from error
    if not isinstance(value, dict):
        hint = " (a file that is one list becomes rows by jq -c '.[]' FILE)"
        raise RowError(
            f"{kind_of(value)} where an object is needed: write "
            f'{{"question": …}}{hint if isinstance(value, list) else ""}',
            line=line,
        )
    return value


NO_STEPS = "empty though the response is not: leave 'steps' out to have it split"


@dataclass(frozen=True)
class Fields:
    """The checks on one JSON object, or one row of a Parquet file."""

    values: dict[str, Any]
    """Its keys and values."""

    line: int
    """1-based number of the row, for messages and as its id."""

    def problem(self, images: ImageSettings) -> Problem:
        """The question, its images, and the reference answer where there is one."""
        return Problem(
            question=self.question(),
            images=self.images(images),
            reference_answer=self.text("reference_answer"),
        )

    def question(self) -> str:
        """The question, which is never blank."""
        question = self.text("question")
        if question is None:
            self.refuse("question", "missing: give the question that the response answers")
        if not question.strip():
            self.refuse("question", "empty: give the question that the response answers")
        return question

    def id(self) -> str | int:
        """The row's own id, or its line number."""
        value = self.values.get("id")
        if value is None:
            return self.line
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.refuse("id", f"{kind_of(value)}: give a string or a whole number, or leave it out")
        return self.checked_text("id", value) if isinstance(value, str) else value

    def images(self, settings: ImageSettings) -> tuple[str | bytes, ...]:
        """Paths, addresses or, from Parquet, bytes. Files must exist; they are not opened."""
        field = "image" if self.values.get("images") is None else "images"
        value = self.values.get(field)
        if value is None:
            self.refuse("images", "missing: give the path of an image, or a list of paths")
        if field == "images" and self.values.get("image") is not None:
            self.refuse("image", "given beside 'images': leave one of the two out")
        if isinstance(value, str | bytes) or _holds_bytes(value):
            return (self.image(field, value, settings),)
        if not isinstance(value, list):
            self.refuse(field, f"{kind_of(value)}: give a path, or a list of paths")
        if not value:
            self.refuse(field, "empty: give at least one image")
        return tuple(
            self.image(f"{field}[{index}]", item, settings) for index, item in enumerate(value)
        )

    def image(self, field: str, value: object, settings: ImageSettings) -> str | bytes:
        """One image: bytes as they are (also the struct that Hugging Face writes), or a path."""
        if isinstance(value, dict) and _holds_bytes(value):
            value = value["bytes"]
        if isinstance(value, bytes):
            if not value:
                self.refuse(field, "no bytes: give the contents of an image file")
            return value
        reference = self.checked_text(field, value)
        if not reference.strip():
            self.refuse(field, "empty: give the path of an image")
        if problem := unusable_reference(reference, settings):
            self.refuse(field, problem)
        return reference

    def response_and_steps(self) -> tuple[str, tuple[Step, ...] | None]:
        """What the policy wrote, and its steps where the row has them."""
        response = self.text("response")
        texts = self.values.get("steps")
        if texts is None:
            if response is None:
                self.refuse("response", "missing: give 'response', or its 'steps' as a list")
            return response, None
        if not isinstance(texts, list):
            self.refuse("steps", f"{kind_of(texts)}: give a list of texts")
        for index, text in enumerate(texts):
            self.checked_text(f"steps[{index}]", text)
        if response and not texts:
            self.refuse("steps", NO_STEPS)
        try:
            if response is None:
                return join_steps(texts)
            return response, locate_steps(response, texts)
        except StepError as error:
            self.refuse("steps", str(error))

    def text(self, field: str) -> str | None:
        """A field that is a text, or None where it is missing or null."""
        value = self.values.get(field)
        return None if value is None else self.checked_text(field, value)

    def checked_text(self, field: str, value: object) -> str:
        """A value that has to be a text; `field` names it."""
        if not isinstance(value, str):
            self.refuse(field, f"{kind_of(value)}: give a string")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            self.refuse(
                field,
                f"character {error.start + 1} is half of a surrogate pair, which no text can "
                "hold: write the whole character, or \\ufffd",
            )
        return value

    def refuse(self, field: str, message: str) -> NoReturn:
        """Raise the error of this row and this field."""
        raise RowError(message, line=self.line, field=field) from None


def kind_of(value: object) -> str:
    """What a value is, for messages."""
    return "null" if value is None else _KINDS.get(type(value), "a number")


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}")


def _holds_bytes(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def unusable_reference(reference: str, settings: ImageSettings) -> str | None:
    """Why a path or an address of an image cannot be used, with the remedy; None if it can."""
    scheme = _SCHEME.match(reference)
    kind = scheme[0].lower() if scheme else "file://"
    if kind == "data:" or (kind in ("http://", "https://") and settings.allow_urls):
        return None
    if kind != "file://":
        return f"{_excerpt(reference)} is not fetched: download it, give its path"
    try:
        place = path_of_reference(reference, settings)
    except ImageSourceError as error:
        return str(error)
    if problem := _unusable(place):
        return (
            f"{_excerpt(reference)}: {problem}; correct the path (relative paths start from "
            f"{os.path.abspath(settings.root or '.')})"
        )
    return None


def path_of_reference(reference: str, settings: ImageSettings) -> Path:
    """The file that a path or a `file://` URL names. Raises `ImageSourceError` for other URLs."""
    named = path_of_file_url(reference) if _SCHEME.match(reference) else reference
    return (settings.root or Path()) / named


def _unusable(path: Path) -> str | None:
    """Why a file cannot be read, or None."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or "not a usable path"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return None if os.access(path, os.R_OK) else "Permission denied"
