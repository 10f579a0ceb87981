"""Scores -> rows of a JSONL file that appears whole or not at all."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from vrprm_reward.errors import InputError
from vrprm_reward.jobs.rows import Row
from vrprm_reward.types import ProcessScore


def mean_p_correct(score: ProcessScore) -> float | None:
    """VRPRM's score of a response: the mean of `p_correct`. None where there is no score."""
    return fmean(score.p_correct) if score.scored else None


def score_record(
    row: Row, score: ProcessScore, *, model: str, profile: str | None
) -> dict[str, Any]:
    """The row of an output file: plain JSON values, null where there is no score."""
    judged = score.p_correct if score.scored else [None] * len(score.steps)
    return {
        "id": row.id,
        "line": row.line,
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
        "model": model,
        "profile": profile,
    }


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


@contextlib.contextmanager
def atomic_jsonl(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write a JSONL file that appears whole at the end of the block, or not at all.

    Gives a function that appends one record. Records are collected in a hidden file in the same
    folder; if the block raises, it is deleted and what stood at `path` stays.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".vrprm-{secrets.token_hex(6)}.part")
    try:
        with part.open("xb") as file:

            def write(record: Mapping[str, Any]) -> None:
                file.write(json_line(record))

            yield write
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
