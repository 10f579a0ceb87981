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
    import sqlite3

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
