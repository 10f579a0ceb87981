"""What the output of a job holds, and where it may be written."""

import contextlib
import json
import stat
from pathlib import Path

import pytest

from tests.jobs.test_rows import GOOD, read
from vrprm_reward.errors import InputError
from vrprm_reward.jobs.outputs import (
    atomic_output,
    check_output,
    image_reference,
    json_line,
    score_record,
)
from vrprm_reward.types import ProcessScore, Step, Usage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    return tmp_path


SCORED = ProcessScore(
    status="scored",
    steps=(Step(text="One.", start=0, end=4), Step(text="二", start=5, end=6)),
    p_correct=(1.0, 0.5),
    thinking="hm",
    flags=("thinking_truncated",),
    usage=Usage(prompt_tokens=10, generated_tokens=2, requests=3, rounds=2),
)
UNSCORED = ProcessScore(
    status="unscored_response",
    steps=(Step(text="One.", start=0, end=4),),
    reason="too_many_steps",
    detail="too many",
)


class TestWriting:
    def test_a_scored_row_has_everything_that_is_known(self, folder: Path) -> None:
        row = read(folder, {**GOOD, "id": "r1"})
        assert score_record(row, SCORED, model="demo", profile="two_stage") == {
            "id": "r1",
            "line": 7,
            "question": "How many?",
            "images": ["a.png"],
            "status": "scored",
            "reason": None,
            "detail": None,
            "p_correct": [1.0, 0.5],
            "mean": 0.75,
            "steps": [
                {"text": "One.", "start": 0, "end": 4, "p_correct": 1.0},
                {"text": "二", "start": 5, "end": 6, "p_correct": 0.5},
            ],
            "thinking": "hm",
            "flags": ["thinking_truncated"],
            "usage": {"prompt_tokens": 10, "generated_tokens": 2, "requests": 3, "rounds": 2},
            "model": "demo",
            "profile": "two_stage",
        }

    def test_an_unscored_row_has_nulls_and_never_a_number(self, folder: Path) -> None:
        record = score_record(read(folder, GOOD), UNSCORED, model="m", profile=None)
        assert (record["status"], record["reason"]) == ("unscored_response", "too_many_steps")
        assert record["p_correct"] is record["mean"] is record["steps"][0]["p_correct"] is None
        assert (
            record.keys()
            == score_record(read(folder, GOOD), SCORED, model="m", profile=None).keys()
        )

    def test_a_line_is_utf_8_and_ends_in_one_line_feed(self) -> None:
        assert json_line({"text": "二\n\u2028"}) == '{"text": "二\\n\u2028"}\n'.encode()

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_nan_and_infinity_are_never_written(self, number: float) -> None:
        with pytest.raises(ValueError):
            json_line({"mean": number})

    def test_half_a_surrogate_pair_is_written_as_its_escape(self) -> None:
        assert json.loads(json_line({"thinking": "a\ud83d"})) == {"thinking": "a\ud83d"}

    def test_the_file_appears_only_when_all_is_written(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        with atomic_output(path) as write:
            write({"a": 1})
            assert not path.exists()
        assert path.read_text() == '{"a": 1}\n'
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
        self, tmp_path: Path, failure: type[BaseException]
    ) -> None:
        path = tmp_path / "out.jsonl"
        path.write_text("old")
        with contextlib.suppress(failure), atomic_output(path) as write:
            write({"a": 1})
            raise failure
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_symbolic_link_stays_one(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
        real.write_text("old")
        link.symlink_to(real)
        with atomic_output(link) as write:
            write({})
        assert link.is_symlink()
        assert real.read_text() == "{}\n"

    def test_the_file_has_ordinary_permissions(self, tmp_path: Path) -> None:
        ordinary, path = tmp_path / "ordinary", tmp_path / "out.jsonl"
        ordinary.touch()
        with atomic_output(path):
            pass
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


class TestPathsOfImages:
    """Below `tmp_path`: data/rows.jsonl, data/pics/a.png, b.png, and links of two kinds."""

    @pytest.fixture(autouse=True)
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for folder in ("deep/store/data/pics", "deep/er/runs", "runs"):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "data_link").symlink_to("deep/store/data")
        (tmp_path / "runs_link").symlink_to("deep/er/runs")
        (tmp_path / "deep/store/data/pics_link").symlink_to("../../er/runs")
        (tmp_path / "deep/store/data/pics/a.png").symlink_to("../../b.png")
        (tmp_path / "deep/store/b.png").touch()
        (tmp_path / "deep/er/b.png").touch()
        (tmp_path / "deep/er/runs/c.png").touch()
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize("base", ["runs", "runs_link", "data_link", "."])
    @pytest.mark.parametrize("root", ["data_link", "deep/store/data"])
    @pytest.mark.parametrize(
        "text", ["pics/a.png", "../b.png", "pics_link/c.png", "pics_link/../b.png", "./pics/a.png"]
    )
    def test_they_lead_to_the_same_file_through_links_too(
        self, base: str, root: str, text: str
    ) -> None:
        found = image_reference(text, root=Path(root), base=Path(base))
        assert Path(base, found).samefile(Path(root, text))
        assert Path(found).name == Path(text).name

    def test_links_in_the_path_itself_keep_their_names(self) -> None:
        root = Path("data_link")
        assert image_reference("pics_link/c.png", root=root, base=root) == "pics_link/c.png"

    @pytest.mark.parametrize("text", ["/a/b/../c.png", "https://h/a/../b.png", "data:,x/../y"])
    def test_what_starts_from_no_folder_stays_as_it_is(self, text: str) -> None:
        assert image_reference(text, root=Path("data_link"), base=Path("runs_link")) == text


class TestCheckingTheOutput:
    def test_a_new_file_in_a_folder_is_fine(self, tmp_path: Path) -> None:
        check_output(tmp_path / "out.jsonl", source=None, overwrite=False)

    def test_a_file_that_exists_needs_overwrite(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.touch()
        with pytest.raises(InputError, match="--overwrite"):
            check_output(path, source=None, overwrite=False)
        check_output(path, source=None, overwrite=True)

    def test_the_input_is_never_overwritten_whatever_it_is_called(self, tmp_path: Path) -> None:
        path, link = tmp_path / "rows.jsonl", tmp_path / "link"
        path.touch()
        link.hardlink_to(path)
        for same in (path, link, tmp_path / "." / "rows.jsonl"):
            with pytest.raises(InputError, match="is the input file"):
                check_output(same, source=path, overwrite=True)

    def test_a_missing_folder_is_said_before_any_work(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="mkdir -p"):
            check_output(tmp_path / "no" / "out.jsonl", source=None, overwrite=False)

    @pytest.mark.parametrize("place", ["/dev/null", "/tmp"])
    def test_devices_and_folders_are_refused(self, place: str) -> None:
        with pytest.raises(InputError, match="not a regular file"):
            check_output(Path(place), source=None, overwrite=True)
