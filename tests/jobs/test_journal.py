import sqlite3
from pathlib import Path

import pytest

from vrprm_reward.errors import InputError
from vrprm_reward.jobs.journal import Journal


def key(number: int) -> bytes:
    return number.to_bytes(16)


def test_what_is_put_is_found_again_after_the_file_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "out.unfinished"
    with Journal(path) as journal:
        journal.put({key(n): f"text {n}" for n in range(1200)})
    with Journal(path) as journal:
        assert len(journal) == 1200
        assert journal.get([key(7), key(5000), key(1199)]) == {
            key(7): "text 7",
            key(1199): "text 1199",
        }
        assert len(journal.get([key(n) for n in range(1200)])) == 1200
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_texts_last_until_the_journal_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "out.unfinished"
    with Journal(path) as journal:
        journal.put({key(1): "a", key(2): "b"}, temporary=[key(2)])
        assert len(journal) == 2
    with Journal(path) as journal:
        assert journal.get([key(1), key(2)]) == {key(1): "a"}


def test_a_journal_without_a_file_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(None) as journal:
        journal.put({key(1): "a"})
        assert journal.get([key(1)]) == {key(1): "a"}
    assert list(tmp_path.iterdir()) == []


def test_two_jobs_never_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "out.unfinished"
    with Journal(path), pytest.raises(InputError, match="in use by another job"):
        Journal(path)
    with Journal(path):
        pass


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path, content = tmp_path / "out.unfinished", b"not a database" * 100
    path.write_bytes(content)
    with pytest.raises(InputError, match="move it away"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.unfinished"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="not written by a job of this version"):
        Journal(path)
    assert path.read_bytes() == before


def test_deleting_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.unfinished")
    journal.put({key(1): "a"})
    journal.delete()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 238, "x" * 300, "no/folder"])
def test_a_file_that_cannot_be_made_is_said_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be made .*is the folder writable"):
        Journal(tmp_path / f"{name}.unfinished")


def fill(journal: Journal) -> None:
    """Leave no space, as a full disk does."""
    journal._database.execute("PRAGMA max_page_count = 1")


def test_a_full_disk_is_said_and_what_was_put_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.unfinished"
    with Journal(path) as journal:
        journal.put({key(1): "a"})
        fill(journal)
        with pytest.raises(InputError, match=r"full\): free space .* the same command goes on"):
            journal.put({key(n): "text" * 1000 for n in range(2, 100)})
        journal.put({key(1): "b"})
    with Journal(path) as journal:
        assert journal.get([key(n) for n in range(100)]) == {key(1): "b"}


def test_without_a_file_a_full_disk_loses_the_work_and_says_so() -> None:
    with Journal(None) as journal:
        fill(journal)
        with pytest.raises(InputError, match="the same command starts anew"):
            journal.put({key(1): "text" * 10_000})


def test_a_file_that_is_damaged_meanwhile_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "out.unfinished"
    with Journal(path) as journal:
        journal.put({key(n): "text" * 100 for n in range(1000)})
    with Journal(path) as journal:
        journal._database.execute("PRAGMA shrink_memory")
        path.write_bytes(b"\xff" * path.stat().st_size)
        for use in (lambda: journal.get([key(1)]), lambda: len(journal)):
            with pytest.raises(InputError, match=r"cannot be read .*: delete it"):
                use()


def test_a_journal_that_was_closed_raises_no_error_of_sqlite(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.unfinished")
    journal.close()
    for use in (lambda: journal.get([key(1)]), lambda: journal.put({}), lambda: len(journal)):
        with pytest.raises(InputError) as raised:
            use()
        assert isinstance(raised.value.__cause__, sqlite3.Error)
