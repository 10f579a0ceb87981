"""Parquet in and out, by pyarrow, in pieces: memory does not grow with the file.

What is written has the columns of the JSON objects it comes from. A column that is null in every
row is written as text, so that the parts of a sharded job have the same kinds of columns.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from vrprm_reward.errors import InputError, MissingExtraError

PARQUET = ".parquet"
"""Names that end so are Parquet; all others are JSONL."""

ROWS_IN_MEMORY = 256


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
        InputError: a key has values of different kinds, such as ids that are texts and numbers.
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    schema = arrow.schema([])
    try:
        for rows in _pieces(source):
            found = arrow.Table.from_pylist(rows).schema
            schema = arrow.unify_schemas([schema, found], promote_options="permissive")
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise InputError(
            f"the results do not fit the columns of a Parquet file ({error}): write JSONL instead"
        ) from error
    schema = arrow.schema([(field.name, _without_null(arrow, field.type)) for field in schema])
    with parquet.ParquetWriter(target, schema) as writer:
        for rows in _pieces(source):
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def _pieces(source: Path) -> Iterator[list[dict[str, Any]]]:
    with source.open("rb") as file:
        while rows := [json.loads(line) for line in islice(file, ROWS_IN_MEMORY)]:
            yield rows


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
