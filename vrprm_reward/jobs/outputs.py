"""Scores -> rows of a JSONL or Parquet file that appears whole or not at all."""

import base64
import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from vrprm_reward.errors import InputError
from vrprm_reward.images.files import format_of
from vrprm_reward.jobs.parquet import PARQUET, check_parquet, jsonl_to_parquet
from vrprm_reward.jobs.rows import Row
from vrprm_reward.types import ImageSource, ProcessScore


def mean_p_correct(score: ProcessScore) -> float | None:
    """VRPRM's score of a response: the mean of `p_correct`. None where there is no score."""
    return fmean(score.p_correct) if score.scored else None


def score_record(
    row: Row,
    score: ProcessScore,
    *,
    model: str,
    profile: str | None,
    root: Path | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """The row of an output file: plain JSON values, null where there is no score.

    Args:
        row: what was scored.
        score: what came out.
        model: name of the model.
        profile: name of the profile.
        root: where relative paths of images start.
        output: the file of the record, from whose folder they shall start; None: they stay.
    """
    problem = row.rollout.problem
    return {
        "id": row.id,
        "line": row.line,
        "question": problem.question,
        "images": image_references(problem.images, root, output),
        **score_values(score),
        "model": model,
        "profile": profile,
    }


def score_values(score: ProcessScore) -> dict[str, Any]:
    """What a score says, as plain JSON values."""
    judged = score.p_correct if score.scored else [None] * len(score.steps)
    return {
        "status": score.status,
        "reason": score.reason,
        "detail": score.detail,
        "p_correct": list(score.p_correct) if score.scored else None,
        "mean": mean_p_correct(score),
        "steps": [
            {**step.model_dump(), "p_correct": p}
            for step, p in zip(score.steps, judged, strict=True)
        ],
        "thinking": score.thinking,
        "flags": list(score.flags),
        "usage": score.usage.model_dump(),
    }


def image_references(
    images: Iterable[ImageSource], root: Path | None, output: Path | None
) -> list[str]:
    """`image_reference` of several images, as they are found from the file `output`."""
    base = None if output is None else output.parent
    return [image_reference(image, root=root, base=base) for image in images]


def image_reference(
    image: ImageSource, *, root: Path | None = None, base: Path | None = None
) -> str:
    """An image as a text that finds it again.

    Args:
        image: a path, an address, or bytes, which become a `data:` URL.
        root: where a relative path starts now.
        base: the folder from which it shall start. None: the path stays as it is.
    """
    if isinstance(image, bytes):
        # Not decoded: an image that cannot be is the row's misfortune, not the job's.
        kind = Image.MIME.get(format_of(image) or "", "application/octet-stream")
        return f"data:{kind};base64,{base64.b64encode(image).decode()}"
    if isinstance(image, Image.Image):
        raise InputError("an image in memory has no reference: pass a path or the bytes of a file")
    text = os.fspath(image)
    if base is None or "://" in text or text[:5].lower() == "data:" or os.path.isabs(text):
        return text
    return os.path.relpath(_place(root or Path(), text), os.path.realpath(base))


def _place(root: Path, text: str) -> str:
    """An image's path on which no `..` follows a symbolic link; other links keep their names."""
    image = os.path.join(os.path.realpath(root), text)
    if os.path.pardir not in Path(text).parts:
        return image
    folder, name = os.path.split(image)
    return os.path.join(os.path.realpath(folder), name)


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of UTF-8. Raises ValueError for NaN and infinity."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair becomes \udXXX, which is its escape in JSON too.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def check_output(path: Path, *, source: Path | None, overwrite: bool) -> None:
    """See that an output file may be written, before any work is done for it.

    Raises:
        InputError: it is the input, exists already, or there is no such folder.
    """
    if path.suffix.lower() == PARQUET:
        check_parquet()
    if path.exists():
        if source is not None and source.exists() and path.samefile(source):
            raise InputError(f"{str(path)!r} is the input file: choose another output")
        if not path.is_file():
            raise InputError(f"{str(path)!r} is not a regular file: choose another output")
        if not overwrite:
            raise InputError(
                f"{str(path)!r} exists: choose another output, or pass --overwrite to replace it"
            )
    elif not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r}: make it first (mkdir -p)")


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all; characters that are none become `?`."""
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write a JSONL or (`.parquet`) Parquet file that appears whole at the block's end, or never.

    Gives a function that appends one record. Records are collected in a hidden file in the same
    folder; if the block raises, it is deleted and what stood at `path` stays. One that a killed
    process has left there is replaced.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        InputError: records that do not fit the columns of a Parquet file.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.part")
    columns = target.with_name(f".{target.name}.part.parquet")
    try:
        with part.open("wb") as file:

            def write(record: Mapping[str, Any]) -> None:
                file.write(json_line(record))

            yield write
            file.flush()
            os.fsync(file.fileno())
        if target.suffix.lower() == PARQUET:
            jsonl_to_parquet(part, columns)
            columns.replace(target)
        else:
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        columns.unlink(missing_ok=True)
