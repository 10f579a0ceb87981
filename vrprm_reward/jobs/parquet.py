"""Parquet in and out, by pyarrow, in pieces: memory does not grow with the file.

What is written has the columns of the JSON objects it comes from. A column that is null in every
row is written as text, so that the parts of a sharded job have the same kinds of columns.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vrprm_reward.errors import InputError, MissingExtraError

PARQUET = ".parquet"
"""Names that end so are Parquet; all others are JSONL."""

ROWS_IN_MEMORY = 256

_NUMBERS = range(-(2**63), 2**63)


@dataclass
class IdColumn:
    """Whether the ids of rows fit one column: texts alone, or whole 64-bit numbers alone."""

    text: str | None = None
    """The first id that is a text, with its line."""

    number: str | None = None
    """The first one that is a number."""

    too_large: str | None = None
    """The first number that 64 bits with a sign cannot hold."""

    def add(self, line: int, value: str | int) -> None:
        """See the id of a row; `line` is its number, which is also the id of a row without one."""
        if isinstance(value, str):
            self.text = self.text or _id_in_words(line, value)
            return
        self.number = self.number or _id_in_words(line, value)
        if value not in _NUMBERS:
            self.too_large = self.too_large or _id_in_words(line, value)

    def check(self, output: Path) -> None:
        """Raises `InputError` where the ids do not fit the Parquet file that is to be written."""
        if self.text and self.number:
            what = (
                f"texts and numbers ({self.text}, {self.number}; a row without an id has its line "
                "number)"
            )
        elif self.too_large:
            what = f"numbers outside -2^63 to 2^63 - 1 ({self.too_large})"
        else:
            return
        raise InputError(
            f"the rows have ids that are {what}, which do not fit the column of a Parquet file: "
            f"give every row a text as its id, or write JSONL instead of {str(output)!r}"
        )


def _id_in_words(line: int, value: str | int) -> str:
    shown = repr(value)
    return f"line {line}: {shown if len(shown) <= 60 else shown[:59] + '…'}"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"Parquet files need pyarrow ({error}): pip install 'vrprm-reward[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet


def check_parquet() -> None:
    """Raises `MissingExtraError` unless Parquet can be read and written."""
    _pyarrow()


def open_parquet(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dictionaries, lazily.

    Raises:
        InputError: the file is broken.
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=ROWS_IN_MEMORY):
            yield from batch.to_pylist()
    except (arrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{name} cannot be read as Parquet ({error}): is it complete?") from error


def jsonl_to_parquet(source: Path, target: Path) -> None:
    """Write the objects of a JSONL file as a Parquet file, in two readings.

    Raises:
        InputError: a key has values of different kinds, such as ids that are texts and numbers,
            or a number of more than 64 bits.
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    schema = arrow.schema([])
    try:
        for rows in _pieces(source):
            found = arrow.Table.from_pylist(rows).schema
            schema = arrow.unify_schemas([schema, found], promote_options="permissive")
    except (arrow.ArrowInvalid, arrow.ArrowTypeError, OverflowError) as error:
        raise InputError(
            f"the results do not fit the columns of a Parquet file ({error}): write JSONL instead; "
            "the finished work serves it when OUT.parquet.unfinished is renamed to "
            "OUT.jsonl.unfinished"
        ) from error
    schema = arrow.schema([(field.name, _without_null(arrow, field.type)) for field in schema])
    with parquet.ParquetWriter(target, schema) as writer:
        for rows in _pieces(source):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _pieces(source: Path) -> Iterator[list[dict[str, Any]]]:
    with source.open("rb") as file:
        while rows := [_record(line) for line in islice(file, ROWS_IN_MEMORY)]:
            yield rows


def _record(line: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(line)
    if b"\\ud" in line:
        # Half a surrogate pair, in a model's thinking, becomes `?`: Parquet holds UTF-8 alone.
        record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    return record


def _without_null(arrow: Any, kind: Any) -> Any:
    """A type with text in place of null, which says nothing of the values to come."""
    if arrow.types.is_null(kind):
        return arrow.string()
    if arrow.types.is_list(kind):
        return arrow.list_(_without_null(arrow, kind.value_type))
    if arrow.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return arrow.struct([(f.name, _without_null(arrow, f.type)) for f in fields])
    return kind
