"""Rows of a JSONL file -> rollouts.

A row that can be read is a JSON object with

- `question`: text;
- `images`: a path, a `data:` URL or a `file://` URL, or a list of them (also spelt `image`);
- `response`: what the policy wrote, and / or `steps`: a list of texts that stand in it;
- optionally `reference_answer` (text) and `id` (text or a whole number).

Other keys are ignored. Relative paths start from the folder of the file. Blank lines are skipped.
"""

import codecs
import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from vrprm_reward.errors import ImageSourceError, InputError, RowError, StepError
from vrprm_reward.image_urls import path_of_file_url
from vrprm_reward.images import ImageSettings
from vrprm_reward.steps import join_steps, locate_steps
from vrprm_reward.types import Problem, Rollout, Step

STANDARD_STREAM = "-"
"""The name that stands for standard input, and for standard output."""

_SCHEME = re.compile(r"(data:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_KINDS = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Row:
    """A row that could be read."""

    line: int
    """1-based line number in the file."""

    id: str | int
    """The row's own id, or its line number where it has none."""

    rollout: Rollout
    """What is to be scored. Image paths are as in the row, not yet resolved."""

    def problem_key(self) -> bytes:
        """16 bytes, equal for rows with the same question and images: candidates of a problem."""
        problem = self.rollout.problem
        text = json.dumps([problem.question, [str(image) for image in problem.images]])
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class RowSource:
    """An open file of rows that can be read as often as needed, one reading at a time."""

    name: str
    """Name for messages."""

    folder: Path
    """Where relative image paths start."""

    path: Path | None
    """The file, or None for standard input."""

    file: BinaryIO
    """Its bytes; seekable."""

    def rows(self, images: ImageSettings, limit: int | None = None) -> Iterator[Row | RowError]:
        """Read from the first line on, lazily; a row that cannot be used comes as its error.

        Args:
            images: what images may be; `root` should be `folder`.
            limit: end after this many rows, good or bad. None: read them all.

        Raises:
            InputError: the file is one JSON document over several lines.
        """
        self.file.seek(0)
        count = 0
        for line, raw in enumerate(self.file, start=1):
            if line == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if not raw.strip():
                continue
            if count == limit:
                return
            if count == 0 and raw.strip() in (b"[", b"{"):
                raise InputError(
                    f"{self.name} is one JSON document over several lines: write one object per "
                    "line (jq -c '.[]' FILE for a list, jq -c . FILE for objects)"
                )
            count += 1
            try:
                yield parse_row(raw, line=line, images=images)
            except RowError as error:
                yield error


@contextlib.contextmanager
def open_rows(name: str) -> Iterator[RowSource]:
    """Open a file of rows, or standard input for `-` (image paths from the working directory).

    Pipes are first copied into a temporary file, so that every row can be checked before the
    first one is scored.

    Raises:
        InputError: no such file, or it cannot be read.
    """
    path = None if name == STANDARD_STREAM else Path(name)
    with contextlib.ExitStack() as stack:
        try:
            file: BinaryIO = stack.enter_context(path.open("rb")) if path else sys.stdin.buffer
        except OSError as error:
            raise InputError(
                f"{name!r} cannot be read ({error.strerror}): name a JSONL file, or - for "
                "standard input"
            ) from error
        if path is None or not file.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            file = copy
        shown = name if path else "standard input"
        yield RowSource(shown, path.parent if path else Path.cwd(), path, file)


def parse_row(raw: bytes, *, line: int, images: ImageSettings) -> Row:
    """One line of a file as a rollout. Files of images must exist; they are not opened.

    Args:
        raw: the line, in UTF-8.
        line: its 1-based number, for messages and for a row without an id.
        images: from where images may come.

    Raises:
        RowError: the line is no object, or a field is missing, empty, of the wrong type, or does
            not fit the others; has the line and the field.
    """
    return _Fields(_json_object(raw, line), line).row(images)


def _json_object(raw: bytes, line: int) -> dict[str, Any]:
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
            f"{_kind(value)} where an object is needed: write "
            f'{{"question": …}}{hint if isinstance(value, list) else ""}',
            line=line,
        )
    return value


@dataclass(frozen=True)
class _Fields:
    """The checks on one JSON object."""

    values: dict[str, Any]
    line: int

    def row(self, images: ImageSettings) -> Row:
        question = self.text("question")
        if question is None:
            self.refuse("question", "missing: give the question that the response answers")
        if not question.strip():
            self.refuse("question", "empty: give the question that the response answers")
        problem = Problem(
            question=question,
            images=self.images(images),
            reference_answer=self.text("reference_answer"),
        )
        response, steps = self.response_and_steps()
        rollout = Rollout(problem=problem, response=response, steps=steps)
        return Row(line=self.line, id=self.id(), rollout=rollout)

    def id(self) -> str | int:
        value = self.values.get("id")
        if value is None:
            return self.line
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.refuse("id", f"{_kind(value)}: give a string or a whole number, or leave it out")
        return self.checked_text("id", value) if isinstance(value, str) else value

    def images(self, settings: ImageSettings) -> tuple[str, ...]:
        field = "image" if self.values.get("images") is None else "images"
        value = self.values.get(field)
        if value is None:
            self.refuse("images", "missing: give the path of an image, or a list of paths")
        if field == "images" and self.values.get("image") is not None:
            self.refuse("image", "given beside 'images': leave one of the two out")
        if isinstance(value, str):
            self.check_image(field, value, settings)
            return (value,)
        if not isinstance(value, list):
            self.refuse(field, f"{_kind(value)}: give a path, or a list of paths")
        if not value:
            self.refuse(field, "empty: give at least one image")
        for index, item in enumerate(value):
            self.check_image(f"{field}[{index}]", item, settings)
        return tuple(value)

    def check_image(self, field: str, value: object, settings: ImageSettings) -> None:
        reference = self.checked_text(field, value)
        if not reference.strip():
            self.refuse(field, "empty: give the path of an image")
        scheme = _SCHEME.match(reference)
        kind = scheme[0].lower() if scheme else "file://"
        if kind == "data:" or (kind in ("http://", "https://") and settings.allow_urls):
            return
        if kind != "file://":
            self.refuse(field, f"{_excerpt(reference)} is not fetched: download it, give its path")
        try:
            place = path_of_file_url(reference) if scheme else reference
        except ImageSourceError as error:
            self.refuse(field, str(error))
        if problem := _unusable((settings.root or Path()) / place):
            self.refuse(
                field,
                f"{_excerpt(reference)}: {problem}; correct the path (relative paths start from "
                f"{os.path.abspath(settings.root or '.')})",
            )

    def response_and_steps(self) -> tuple[str, tuple[Step, ...] | None]:
        response = self.text("response")
        texts = self.values.get("steps")
        if texts is None:
            if response is None:
                self.refuse("response", "missing: give 'response', or its 'steps' as a list")
            return response, None
        if not isinstance(texts, list):
            self.refuse("steps", f"{_kind(texts)}: give a list of texts")
        for index, text in enumerate(texts):
            self.checked_text(f"steps[{index}]", text)
        if response and not texts:
            self.refuse(
                "steps", "empty though the response is not: leave 'steps' out to have it split"
            )
        try:
            if response is None:
                return join_steps(texts)
            return response, locate_steps(response, texts)
        except StepError as error:
            self.refuse("steps", str(error))

    def text(self, field: str) -> str | None:
        value = self.values.get(field)
        return None if value is None else self.checked_text(field, value)

    def checked_text(self, field: str, value: object) -> str:
        if not isinstance(value, str):
            self.refuse(field, f"{_kind(value)}: give a string")
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
        raise RowError(message, line=self.line, field=field) from None


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), "a number")


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}")


def _unusable(path: Path) -> str | None:
    """Why a file cannot be read, or None."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or "not a usable path"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return None if os.access(path, os.R_OK) else "Permission denied"
