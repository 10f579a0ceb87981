"""Rows of questions, images and answers -> rows that OpenRLHF trains on.

OpenRLHF hands a reward the label column and nothing else of a row, so the label repeats the
question and the images. Every row has the same fields of the same types, because a column of
objects is loaded as one struct.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrprm_reward.errors import ImageError, InputError, RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.encoded import encoded_image
from vrprm_reward.jobs.outputs import atomic_output
from vrprm_reward.jobs.parquet import PARQUET, open_parquet
from vrprm_reward.openrlhf_wire import is_text

PLACEHOLDER = "<image>"
"""Where an image stands in a question, for OpenRLHF."""

JSONL = ".jsonl"


@dataclass(frozen=True)
class Columns:
    """Which keys of a row are what."""

    question: str = "question"
    """The question; `<image>` may stand in it, once for every image."""

    images: str = "images"
    """Paths (relative ones from the file's folder), data URLs, URLs, or objects with `bytes`; one
    or a list of them."""

    answer: str | None = "answer"
    """The reference answer; None: there are none."""

    system: str | None = None
    """Not a key: a system prompt for every row."""


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | RowError]]:
    """Rows of a JSONL or parquet file with their 1-based numbers; a bad line as its error.

    Raises:
        InputError: neither of these, or it cannot be read.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    _check_name(path)
    try:
        with path.open("rb") as lines:
            if path.suffix == PARQUET:
                yield from enumerate(open_parquet(lines, repr(str(path))), start=1)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _object(line, number)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def prepared_row(
    row: Mapping[str, Any], *, line: int, columns: Columns, images: ImageSettings
) -> dict[str, Any]:
    """One row as OpenRLHF wants it: `prompt`, `images`, `label` and `datasource`.

    Opens every image that is a file or came along; URLs are taken as they are.

    Raises:
        RowError: a field is missing or of the wrong type, an image cannot be used, or there are
            not as many placeholders as images.
    """
    question = row.get(columns.question)
    if not is_text(question) or not question.strip():
        raise RowError("missing, empty, or not a text", line=line, field=columns.question)
    references = _references(row, line=line, key=columns.images, settings=images)
    placed = question.count(PLACEHOLDER)
    if placed not in (0, len(references)):
        raise RowError(
            f"{placed} times {PLACEHOLDER}, but {len(references)} images: write one for each, or "
            "none to have them stand in front",
            line=line,
            field=columns.question,
        )
    content = question if placed else PLACEHOLDER * len(references) + question
    prompt = [{"role": "user", "content": content}]
    if columns.system is not None:
        prompt.insert(0, {"role": "system", "content": columns.system})
    source = row.get("datasource")
    return {
        "prompt": prompt,
        "images": references,
        "label": {
            "question": question,
            "images": references,
            "answer": _answer(row, line=line, key=columns.answer),
        },
        "datasource": source if is_text(source) else "default",
    }


def open_output(
    path: Path,
) -> contextlib.AbstractContextManager[Callable[[Mapping[str, Any]], None]]:
    """A function that takes rows to a JSONL or parquet file, which appears whole or not at all.

    Raises:
        InputError: neither of these.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    _check_name(path)
    return atomic_output(path)


def _check_name(path: Path) -> None:
    if path.suffix not in (JSONL, PARQUET):
        raise InputError(f"{str(path)!r} is neither {JSONL} nor {PARQUET}")


def _object(line: bytes, number: int) -> Mapping[str, Any] | RowError:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowError(f"not JSON ({error}): write one object per line", line=number)
    return value if isinstance(value, dict) else RowError("not an object", line=number)


def _references(
    row: Mapping[str, Any], *, line: int, key: str, settings: ImageSettings
) -> list[str]:
    value = row.get(key)
    many: Sequence[Any] = value if isinstance(value, list) else [value]
    if value is None or not many:
        raise RowError("missing: every question needs its images", line=line, field=key)
    try:
        return [_reference(each, settings) for each in many]
    except ImageError as error:
        raise RowError(str(error), line=line, field=key) from None
    except ValueError as error:
        raise RowError(str(error), line=line, field=key) from None


def _reference(value: Any, settings: ImageSettings) -> str:
    """An image as a text that every machine reads alike: an absolute path, a data URL, a URL."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return encoded_image(value, settings).data_url()
    if not is_text(value) or not value:
        raise ValueError("not a path, a URL, a data URL or an object with bytes")
    if value.startswith(("http://", "https://")):
        return value
    encoded = encoded_image(value, settings)
    if value.startswith(("data:", "file:")):
        return encoded.data_url()
    path: str = os.path.abspath(Path(settings.root or ".") / value)
    return path


def _answer(row: Mapping[str, Any], *, line: int, key: str | None) -> str | None:
    if key is None:
        return None
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not is_text(value) or not value.strip():
        raise RowError(
            "missing, empty, or not a text: name its column with --answer-key, or pass "
            "--no-answers to train on process rewards alone (VRPRM_OPENRLHF_COMBINATION=process)",
            line=line,
            field=key,
        )
    return value
