"""Finished work of a job, on disk until its output is complete: what a killed job goes on from.

An SQLite file beside the output. SQLite's write-ahead log survives `kill -9` at any moment, looks
keys up without holding them in memory, and is locked by the process that uses it.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from vrprm_reward.errors import InputError

_APPLICATION = 0x7672706D  # "vrpm": SQLite's own place for whose file this is
_VERSION = 1
_KEYS_IN_ONE_QUERY = 500
_NO_JOURNAL = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class Journal:
    """Texts by key. What is put is safe from a kill when `put` returns.

    Args:
        path: the file, made if it is not there. None: a temporary one that nobody sees.

    Raises:
        InputError: another job is using the file, it is something else, or it cannot be made. The
            methods raise it too where the file can no longer be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._name = "the temporary file of finished work" if path is None else repr(str(path))
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                path or "", timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise InputError(f"{self._name} {_why_not_opened(error)}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._database.close()
            raise InputError(f"{self._name} {_why_not_opened(error)}") from error
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and (application, version) != (_APPLICATION, _VERSION):
            raise InputError(
                f"{str(self.path)!r} was not written by a job of this version: move it away"
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        run(
            "CREATE TABLE IF NOT EXISTS work "
            "(key BLOB PRIMARY KEY, text TEXT NOT NULL, final INTEGER NOT NULL)"
        )
        run(f"PRAGMA application_id = {_APPLICATION}")
        run(f"PRAGMA user_version = {_VERSION}")
        run("DELETE FROM work WHERE NOT final")
        run("COMMIT")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The texts of those keys that are there."""
        found: dict[bytes, str] = {}
        with self._lock, self._usable("read"):
            for start in range(0, len(keys), _KEYS_IN_ONE_QUERY):
                some = keys[start : start + _KEYS_IN_ONE_QUERY]
                marks = ", ".join("?" * len(some))
                found.update(
                    self._database.execute(
                        f"SELECT key, text FROM work WHERE key IN ({marks})",
                        some,
                    ).fetchall()
                )
        return found

    def put(self, texts: Mapping[bytes, str], *, temporary: Iterable[bytes] = ()) -> None:
        """Keep texts. Those of `temporary` keys are forgotten when the journal is opened again."""
        passing = set(temporary)
        rows = [(key, text, key not in passing) for key, text in texts.items()]
        with self._lock, self._usable("written"):
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO work VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")

    def __len__(self) -> int:
        with self._lock, self._usable("read"):
            (count,) = self._database.execute("SELECT count(*) FROM work").fetchone()
        return int(count)

    @contextlib.contextmanager
    def _usable(self, what: str) -> Iterator[None]:
        """Around a use of the database: its errors as `InputError`, no transaction left open."""
        try:
            yield
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.rollback()
            if _result(error) in _NO_JOURNAL:
                remedy = "delete it and give the same command again, which starts anew"
            else:
                start = "starts anew" if self.path is None else "goes on from the finished work"
                remedy = f"free space on its disk; the same command {start}"
            raise InputError(f"{self._name} cannot be {what} ({error}): {remedy}") from error

    def close(self) -> None:
        """Close the file; what is in it stays."""
        with self._lock:
            self._database.close()

    def delete(self) -> None:
        """Close and delete the file."""
        self.close()
        if self.path is not None:
            for suffix in ("", "-wal", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _result(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None for errors that are Python's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _why_not_opened(error: sqlite3.Error) -> str:
    code = _result(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "is in use by another job that writes the same output: wait for it to end"
    if code in _NO_JOURNAL:
        return f"is no journal of a job ({error}): move it away"
    return (
        f"cannot be made ({error}): is the folder writable, is there space on its disk, and is "
        "the output's name at most 236 bytes long?"
    )
