import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrprm_reward.errors import InputError, RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.rows import Row, parse_row, rollout_row
from vrprm_reward.jobs.source import RowSource, open_rows
from vrprm_reward.types import Step

GOOD = {"question": "How many?", "images": ["a.png"], "response": "One.\nTwo."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    (tmp_path / "b.png").write_bytes(b"not looked into")
    return tmp_path


def read(folder: Path, row: object, line: int = 7) -> Row:
    raw = row if isinstance(row, bytes) else json.dumps(row).encode()
    return parse_row(raw, line=line, images=ImageSettings(root=folder))


def write_rows(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(
        b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows)
    )
    return path


def read_source(source: RowSource, limit: int | None = None) -> Iterator[Row | RowError]:
    return source.read(rollout_row, ImageSettings(root=source.folder), limit)


def read_all(path: Path, limit: int | None = None) -> list[Row | RowError]:
    with open_rows(str(path)) as source:
        return list(read_source(source, limit))


class TestReadingARow:
    def test_a_row_becomes_a_rollout_with_its_paths_as_they_are(self, folder: Path) -> None:
        row = read(folder, {**GOOD, "id": "r1", "reference_answer": "2"})
        assert (row.id, row.line) == ("r1", 7)
        assert row.rollout.problem.question == "How many?"
        assert row.rollout.problem.images == ("a.png",)
        assert row.rollout.problem.reference_answer == "2"
        assert row.rollout.response == "One.\nTwo."
        assert row.rollout.steps is None

    def test_a_row_without_id_has_its_line_number(self, folder: Path) -> None:
        assert read(folder, GOOD, line=12).id == 12

    def test_a_number_is_an_id(self, folder: Path) -> None:
        assert read(folder, {**GOOD, "id": 0}).id == 0

    @pytest.mark.parametrize("field", ["image", "images"])
    def test_one_image_needs_no_list(self, folder: Path, field: str) -> None:
        row = {"question": "?", "response": "x", field: "b.png"}
        assert read(folder, row).rollout.problem.images == ("b.png",)

    def test_image_may_be_a_list_too(self, folder: Path) -> None:
        row = {"question": "?", "response": "x", "image": ["a.png", "b.png"]}
        assert read(folder, row).rollout.problem.images == ("a.png", "b.png")

    def test_other_keys_are_ignored(self, folder: Path) -> None:
        assert read(folder, {**GOOD, "score": float("nan"), "x": {}}) == read(folder, GOOD)

    def test_steps_alone_are_joined_into_a_response(self, folder: Path) -> None:
        row = {"question": "?", "images": "a.png", "steps": ["One.", "Two."]}
        rollout = read(folder, row).rollout
        assert rollout.response == "One.\n\nTwo."
        assert rollout.steps == (
            Step(text="One.", start=0, end=4),
            Step(text="Two.", start=6, end=10),
        )

    def test_steps_beside_a_response_are_found_in_it(self, folder: Path) -> None:
        rollout = read(folder, {**GOOD, "steps": ["Two."]}).rollout
        assert rollout.steps == (Step(text="Two.", start=5, end=9),)

    @pytest.mark.parametrize(
        "row", [{"response": ""}, {"steps": []}, {"response": "", "steps": []}]
    )
    def test_an_empty_response_is_readable_and_left_to_the_scorer(
        self, folder: Path, row: dict[str, Any]
    ) -> None:
        rollout = read(folder, {"question": "?", "images": "a.png", **row}).rollout
        assert rollout.response == ""

    @pytest.mark.parametrize("image", ["data:image/png;base64,AAAA", "DATA:,x"])
    def test_a_data_url_is_not_looked_for_on_disk(self, folder: Path, image: str) -> None:
        assert read(folder, {**GOOD, "images": image}).rollout.problem.images == (image,)

    def test_a_file_url_and_an_absolute_path_do_not_start_from_the_folder(
        self, folder: Path
    ) -> None:
        path = str(folder / "a.png")
        row = parse_row(
            json.dumps({**GOOD, "images": [path, f"file://{path}"]}).encode(),
            line=1,
            images=ImageSettings(root=Path("/elsewhere")),
        )
        assert len(row.rollout.problem.images) == 2

    def test_a_web_address_is_kept_where_the_settings_allow_it(self, folder: Path) -> None:
        images = ImageSettings(allow_urls=True, url_hosts=("x.org",))
        raw = json.dumps({**GOOD, "images": "https://x.org/a.png"}).encode()
        assert parse_row(raw, line=1, images=images).rollout.problem.images

    def test_rows_with_the_same_question_and_images_are_candidates_of_one_problem(
        self, folder: Path
    ) -> None:
        key = read(folder, GOOD).problem_key()
        assert read(folder, {**GOOD, "response": "else", "id": 1}).problem_key() == key
        assert read(folder, {**GOOD, "question": "else"}).problem_key() != key
        assert read(folder, {**GOOD, "images": "b.png"}).problem_key() != key


REFUSED: list[tuple[str, object, str | None, str]] = [
    ("broken JSON", b'{"question": ', None, "not JSON"),
    ("not UTF-8", b'{"question": "\xff"}', None, "save the file as UTF-8"),
    ("a list", [GOOD], None, "jq -c"),
    ("a string", "x", None, "a string where an object is needed"),
    ("deep nesting", b"[" * 200_000, None, "nested too deeply"),
    ("a number of 5,000 digits", b"9" * 5000, None, "a number too long"),
    ("no question", {**GOOD, "question": None}, "question", "missing"),
    ("blank question", {**GOOD, "question": " \n"}, "question", "empty"),
    ("question of another type", {**GOOD, "question": 5}, "question", "a number: give a string"),
    ("half a character", {**GOOD, "response": "a\ud83d"}, "response", "surrogate"),
    ("no images", {**GOOD, "images": None}, "images", "missing"),
    ("empty list of images", {**GOOD, "images": []}, "images", "at least one image"),
    ("images of another type", {**GOOD, "images": {"path": "a.png"}}, "images", "an object"),
    ("both spellings", {**GOOD, "image": "a.png"}, "image", "leave one of the two out"),
    ("empty image", {**GOOD, "images": ["a.png", ""]}, "images[1]", "empty"),
    ("null image", {**GOOD, "images": [None]}, "images[0]", "null: give a string"),
    ("missing file", {**GOOD, "images": "no.png"}, "images", "relative paths start from /"),
    ("a folder", {**GOOD, "images": "."}, "images", "not a regular file"),
    ("path with NUL", {**GOOD, "images": "a\0.png"}, "images", "not a usable path"),
    ("base64 for a path", {**GOOD, "images": "A" * 9000}, "images", "File name too long"),
    ("web address", {**GOOD, "images": "http://x.org/a.png"}, "images", "download it"),
    ("other scheme", {**GOOD, "images": "s3://x/a.png"}, "images", "download it"),
    ("another machine", {**GOOD, "images": "file://host/a.png"}, "images", "machine 'host'"),
    ("neither response nor steps", {**GOOD, "response": None}, "response", "missing"),
    ("response of another type", {**GOOD, "response": ["x"]}, "response", "a list: give a string"),
    ("steps of another type", {**GOOD, "steps": "One."}, "steps", "give a list of texts"),
    ("a step of another type", {**GOOD, "steps": ["One.", 2]}, "steps[1]", "a number"),
    ("blank step", {**GOOD, "steps": ["One.", " "]}, "steps", "step 1 is blank"),
    ("steps not in the response", {**GOOD, "steps": ["Three."]}, "steps", "does not stand in"),
    ("no steps of a response", {**GOOD, "steps": []}, "steps", "leave 'steps' out"),
    ("id of another type", {**GOOD, "id": True}, "id", "true or false: give a string or a whole"),
    ("id with a fraction", {**GOOD, "id": 1.5}, "id", "whole number"),
    ("numeric answer", {**GOOD, "reference_answer": 3}, "reference_answer", "give a string"),
]


@pytest.mark.parametrize(
    ("row", "field", "said"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_a_bad_row_is_refused_with_its_line_field_and_remedy(
    folder: Path, row: object, field: str | None, said: str
) -> None:
    with pytest.raises(RowError) as caught:
        read(folder, row)
    assert (caught.value.line, caught.value.field) == (7, field)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["question", "images", "image", "response", "steps", "id"]), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_stands_in_a_line_it_is_a_row_or_a_row_error(raw: bytes) -> None:
    with contextlib.suppress(RowError):
        parse_row(raw, line=1, images=ImageSettings())


class TestReadingAFile:
    def test_bad_rows_stand_between_their_neighbours(self, folder: Path) -> None:
        found = read_all(write_rows(folder, GOOD, b"{bad", GOOD))
        assert [type(row) for row in found] == [Row, RowError, Row]
        assert [row.line for row in found] == [1, 2, 3]

    def test_blank_lines_are_counted_and_skipped(self, folder: Path) -> None:
        found = read_all(write_rows(folder, b"", GOOD, b" \r", GOOD, b""))
        assert [row.line for row in found] == [2, 4]

    def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(self, folder: Path) -> None:
        line = json.dumps(GOOD).encode() + b"\r"
        assert [row.line for row in read_all(write_rows(folder, b"\xef\xbb\xbf" + line, line))] == [
            1,
            2,
        ]

    def test_a_line_separator_inside_a_string_does_not_end_the_row(self, folder: Path) -> None:
        raw = json.dumps({**GOOD, "response": "a\u2028b\x85c"}, ensure_ascii=False).encode()
        (row,) = read_all(write_rows(folder, raw))
        assert isinstance(row, Row)
        assert row.rollout.response == "a\u2028b\x85c"

    def test_the_limit_counts_good_and_bad_rows_but_no_blank_lines(self, folder: Path) -> None:
        path = write_rows(folder, b"", b"{bad", GOOD, GOOD)
        assert [row.line for row in read_all(path, limit=2)] == [2, 3]

    def test_a_file_is_read_lazily_and_again_from_the_start(self, folder: Path) -> None:
        path = write_rows(folder, *[GOOD] * 5)
        with open_rows(str(path)) as source:
            assert isinstance(read_source(source), Iterator)
            assert next(read_source(source)).line == 1
            assert len(list(read_source(source))) == 5

    @pytest.mark.parametrize("indent", [1, 2])
    @pytest.mark.parametrize("document", [GOOD, [GOOD]])
    def test_a_json_document_over_many_lines_is_one_error_for_the_file(
        self, folder: Path, document: object, indent: int
    ) -> None:
        path = write_rows(folder, json.dumps(document, indent=indent).encode())
        with pytest.raises(InputError, match="one object per line"):
            read_all(path)

    def test_a_missing_file_is_said_so(self, folder: Path) -> None:
        with pytest.raises(InputError, match="No such file"), open_rows(str(folder / "no.jsonl")):
            pass

    def test_a_folder_is_no_file_of_rows(self, folder: Path) -> None:
        with (
            pytest.raises(InputError, match="name a JSONL or Parquet file"),
            open_rows(str(folder)),
        ):
            pass

    def test_standard_input_is_read_twice_although_a_pipe_is_not(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        pipe = Pipe(json.dumps(GOOD).encode())
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(pipe))
        monkeypatch.chdir(folder)
        with open_rows("-") as source:
            assert source.path is None
            assert list(read_source(source)) == list(read_source(source)) != []
