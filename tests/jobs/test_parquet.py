import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.doubles import Watching
from tests.jobs.test_job import LengthReward, run, write_rows
from vrprm_reward.errors import InputError, MissingExtraError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.job import JobSettings, OfflineJob
from vrprm_reward.jobs.outputs import atomic_output, image_reference
from vrprm_reward.jobs.rows import Row, rollout_row
from vrprm_reward.jobs.source import open_rows

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install vrprm-reward[parquet]")

import pyarrow as pa
import pyarrow.parquet as pq

PNG = b"\x89PNG\r\n\x1a\n" + b"not looked into"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    return tmp_path


def write(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def read(path: Path) -> list[Any]:
    with open_rows(str(path)) as source:
        return list(source.read(rollout_row, ImageSettings(root=source.folder)))


ROW = {"id": "r1", "question": "How many?", "images": ["a.png"], "response": "One.\nTwo."}


def test_parquet_rows_are_those_of_the_same_jsonl(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    (row,) = read(write(folder / "rows.parquet", ROW))
    (same,) = read(folder / "rows.jsonl")
    assert row == same


def test_a_bad_row_has_its_number_and_field(folder: Path) -> None:
    found = read(write(folder / "rows.parquet", ROW, {**ROW, "question": " "}, ROW))
    assert [type(row) is Row for row in found] == [True, False, True]
    assert (found[1].line, found[1].field) == (2, "question")


def test_images_may_be_bytes_alone_or_as_hugging_face_writes_them(folder: Path) -> None:
    rows = [
        {**ROW, "images": [{"bytes": PNG, "path": None}]},
        {**ROW, "images": [{"bytes": PNG, "path": "x.png"}]},
    ]
    for row in read(write(folder / "rows.parquet", *rows)):
        assert row.rollout.problem.images == (PNG,)
    (row,) = read(write(folder / "plain.parquet", {**ROW, "images": PNG}))
    assert row.rollout.problem.images == (PNG,)


def test_bytes_of_an_image_are_written_as_a_data_url() -> None:
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    url = image_reference(file.getvalue())
    assert url == f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("data", [b"not an image", PNG[:8] + b"\0" * 40, b""])
def test_bytes_that_are_no_image_end_no_job(data: bytes) -> None:
    kind = "image/png" if data.startswith(PNG[:8]) else "application/octet-stream"
    assert image_reference(data).startswith(f"data:{kind};base64,")


def test_a_cut_file_is_said_so(folder: Path) -> None:
    path = write(folder / "rows.parquet", ROW)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is it complete"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="does not begin as a Parquet file"):
        read(path)


def test_the_output_has_the_records_that_jsonl_has(folder: Path) -> None:
    rows = write_rows(folder, 600)
    for name in ("out.jsonl", "out.parquet"):
        run(LengthReward(), Watching(), rows=rows, output=folder / name)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert pq.read_table(folder / "out.parquet").to_pylist() == lines
    assert not list(folder.glob(".*"))


def test_what_is_null_in_some_rows_or_in_all_fits(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    records: list[dict[str, Any]] = [
        {"a": None, "b": None, "c": [], "d": {"e": None, "f": None}} for _ in range(300)
    ]
    records += [{"a": 1.5, "b": None, "c": [{"p": 0.5}], "d": {"e": "x", "f": None}}]
    with atomic_output(path) as write:
        for record in records:
            write(record)
    assert pq.read_table(path).to_pylist() == records
    assert pq.read_schema(path).field("b").type == pa.string()


def test_columns_of_mixed_kinds_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    output = atomic_output(tmp_path / "out.parquet")
    write = output.__enter__()
    write({"id": 1})
    write({"id": "a"})
    with pytest.raises(InputError, match="write JSONL instead"):
        output.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64])
def test_a_number_of_more_than_64_bits_is_refused(tmp_path: Path, number: int) -> None:
    output = atomic_output(tmp_path / "out.parquet")
    write = output.__enter__()
    write({"id": number})
    with pytest.raises(InputError, match="write JSONL instead; the finished work serves it"):
        output.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with atomic_output(path) as write:
        write({"thinking": "a\ud83d, \\ud83d, \U0001f600"})
    assert pq.read_table(path).to_pylist() == [{"thinking": "a?, \\ud83d, \U0001f600"}]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["a", None], r"texts and numbers \(line 1: 'a', line 2: 2; a row without an id has its"),
        ([7, "a", "b"], r"texts and numbers \(line 2: 'a', line 1: 7;"),
        ([1, 2**63], r"outside -2\^63 to 2\^63 - 1 \(line 2: 9223372036854775808\)"),
        ([-(2**63) - 1], r"outside -2\^63 to 2\^63 - 1 \(line 1: -9223372036854775809\)"),
        (["x" * 500, 10**500], r"line 1: 'x{58}…, line 2: 10{58}…; .* every row a text as its id"),
    ],
)
@pytest.mark.parametrize("name", ["out.parquet", "link.jsonl"])
def test_ids_that_fit_no_column_are_refused_before_anything_is_scored(
    folder: Path, ids: list[Any], told: str, name: str
) -> None:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({**ROW, "id": each}) + "\n" for each in ids))
    (folder / "link.jsonl").symlink_to("out.parquet")
    reward = LengthReward()
    with pytest.raises(InputError, match=told):
        run(reward, Watching(), rows=str(rows), output=folder / name)
    assert reward.seen == []
    assert not list(folder.glob("*.unfinished"))
    run(reward, Watching(), rows=str(rows), output=folder / "out.jsonl")


@pytest.mark.parametrize("ids", [["a", "b"], [None, None], [2**63 - 1, -(2**63)], [5, None]])
def test_ids_of_one_kind_are_fine(folder: Path, ids: list[Any]) -> None:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({**ROW, "id": each}) + "\n" for each in ids))
    run(LengthReward(), Watching(), rows=str(rows), output=folder / "out.parquet")
    assert len(pq.read_table(folder / "out.parquet")) == 2


def test_the_work_for_a_parquet_file_serves_a_jsonl_file_when_renamed(folder: Path) -> None:
    rows, output = write_rows(folder, 8), folder / "out.parquet"
    with OfflineJob(JobSettings(rows=rows, output=output), rollout_row, Watching()) as job:
        job.check()
        next(job.scored("scoring", job.keep(LengthReward(), "m"), lambda row: [row.rollout]))
    (folder / "out.parquet.unfinished").rename(folder / "out.jsonl.unfinished")
    reward = LengthReward()
    run(reward, Watching(), rows=rows, output=folder / "out.jsonl")
    assert reward.seen == []


def test_without_pyarrow_the_command_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "rows.parquet", ROW)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vrprm-reward\[parquet\]'"):
        read(path)
