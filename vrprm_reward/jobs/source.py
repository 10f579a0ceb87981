"""Input files, JSONL or Parquet, read row by row and as often as needed.

In JSONL, blank lines are skipped and rows are numbered as lines; in Parquet, as rows from 1 on.
"""

import codecs
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from vrprm_reward.errors import InputError, RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields, json_object
from vrprm_reward.jobs.parquet import PARQUET, open_parquet

STANDARD_STREAM = "-"
"""The name that stands for standard input, and for standard output."""

_PARQUET_MAGIC = b"PAR1"


class Keyed(Protocol):
    """A row that knows the problem it belongs to."""

    @property
    def line(self) -> int:
        """1-based number of the row."""
        ...

    def problem_key(self) -> bytes:
        """Equal for rows of the same problem."""
        ...


R = TypeVar("R", bound=Keyed)


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1. All rows of one problem are in one part."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `i/n`. Raises `InputError`."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError(
                f"{text!r} is no part of a whole: write i/n, 1/4 to 4/4 for four parts"
            )
        return cls(int(index), int(count))

    def holds(self, row: Keyed | RowError) -> bool:
        """Whether a row belongs to this part."""
        if self.count == 1:
            return True
        number = row.line if isinstance(row, RowError) else int.from_bytes(row.problem_key()[:8])
        return number % self.count == self.index - 1


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

    def read(
        self,
        row_of: Callable[[Fields, ImageSettings], R],
        images: ImageSettings,
        limit: int | None = None,
        shard: Shard = Shard(),
    ) -> Iterator[R | RowError]:
        """Read from the first row on, lazily; a row that cannot be used comes as its error.

        Args:
            row_of: what a row is made into; raises `RowError`.
            images: what images may be; `root` should be `folder`.
            limit: end after this many rows of the file, good or bad. None: read them all.
            shard: only the rows of this part (of the first `limit`) come out.

        Raises:
            InputError: the file is one JSON document over several lines, or broken Parquet.
        """
        for count, fields in enumerate(self._fields(), start=1):
            row: R | RowError
            try:
                row = fields if isinstance(fields, RowError) else row_of(fields, images)
            except RowError as error:
                row = error
            if shard.holds(row):
                yield row
            if count == limit:
                return

    def _fields(self) -> Iterator[Fields | RowError]:
        self.file.seek(0)
        parquet = self.file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        self.file.seek(0)
        if parquet:
            for line, values in enumerate(open_parquet(self.file, self.name), start=1):
                yield Fields(values, line)
            return
        if self.path is not None and self.path.suffix.lower() == PARQUET:
            raise InputError(f"{self.name} does not begin as a Parquet file does: is it complete?")
        yield from self._lines()

    def _lines(self) -> Iterator[Fields | RowError]:
        first = True
        for line, raw in enumerate(self.file, start=1):
            if line == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if not raw.strip():
                continue
            if first and raw.strip() in (b"[", b"{"):
                raise InputError(
                    f"{self.name} is one JSON document over several lines: write one object per "
                    "line (jq -c '.[]' FILE for a list, jq -c . FILE for objects)"
                )
            first = False
            yield _parsed(raw, line)


def _parsed(raw: bytes, line: int) -> Fields | RowError:
    try:
        values: dict[str, Any] = json_object(raw, line)
    except RowError as error:
        return error
    return Fields(values, line)


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
                f"{name!r} cannot be read ({error.strerror}): name a JSONL or Parquet file, or - "
                "for standard input"
            ) from error
        if path is None or not file.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            file = copy
        shown = name if path else "standard input"
        yield RowSource(shown, path.parent if path else Path.cwd(), path, file)
