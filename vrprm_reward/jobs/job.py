"""One offline job: rows in, in pieces, and an output that appears whole; a killed one goes on.

Every command that works on files runs in an `OfflineJob`. It reads all rows once and reports the
bad ones before any model is loaded, hands out the good ones in pieces of bounded size, keeps
finished scores in a journal beside the output, and moves the output into place at the end.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from vrprm_reward.errors import InputError, RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.ahead import ahead
from vrprm_reward.jobs.fields import Fields
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.kept import KeptReward
from vrprm_reward.jobs.outputs import atomic_output, check_output
from vrprm_reward.jobs.parquet import PARQUET, IdColumn
from vrprm_reward.jobs.source import Keyed, RowSource, Shard, open_rows
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.types import ProcessScore, Rollout


class Named(Keyed, Protocol):
    """A row that has an id."""

    @property
    def id(self) -> str | int:
        """The row's own id, or its number."""
        ...


R = TypeVar("R", bound=Named)

ROWS_AT_ONCE = 64
"""Rows in one piece."""

PIECES_AT_ONCE = 3
"""Pieces that are scored at one time: what a kill can lose, and what is in memory."""

JOURNAL_SUFFIX = ".unfinished"


@dataclass(frozen=True)
class JobSettings:
    """What a job works on."""

    rows: str
    """The input file, or `-`."""

    output: Path | None = None
    """The output file, or None where nothing is kept."""

    overwrite: bool = False
    """Whether an output that exists is replaced."""

    limit: int | None = None
    """Only so many rows of the file, or None for all."""

    shard: Shard = field(default_factory=Shard)
    """Which part of the rows is worked on."""

    rows_at_once: int = ROWS_AT_ONCE
    """Rows in one piece."""


class Watcher(Protocol):
    """Who is told how a job goes on."""

    def begin(self, what: str, total: int | None) -> None:
        """A stretch of work begins, of `total` rows where that is known."""
        ...

    def advance(self, rows: int, computed: int) -> None:
        """`rows` more are done; `computed` rollouts have been scored anew so far."""
        ...

    def bad_row(self, error: RowError) -> None:
        """A row cannot be used."""
        ...

    def kept(self, count: int, path: Path) -> None:
        """The job ended early; `count` pieces of finished work are kept."""
        ...

    def resumed(self, count: int) -> None:
        """`count` pieces of finished work were found."""
        ...


class OfflineJob(Generic[R]):
    """A context in which the rows of one file are worked on.

    Args:
        settings: what it works on.
        row_of: what a row is made into; raises `RowError`.
        watcher: who is told about it.

    Raises (on entering):
        InputError: the input cannot be read or has no good row, the output cannot be written, or
            another job is writing it.
    """

    def __init__(
        self,
        settings: JobSettings,
        row_of: Callable[[Fields, ImageSettings], R],
        watcher: Watcher,
    ) -> None:
        self._settings = settings
        self._row_of = row_of
        self._watcher = watcher
        self._stack = contextlib.ExitStack()
        self._bad: set[int] = set()
        self._reward: KeptReward | None = None
        self._finished = False
        self.good = 0
        """Rows that can be read, of this shard."""
        self.resumed = False
        """Whether finished work of an earlier run was found."""

    @property
    def bad(self) -> int:
        """Rows that cannot be used."""
        return len(self._bad)

    @property
    def output(self) -> Path | None:
        """The output file, or None where nothing is kept."""
        return self._settings.output

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            settings = self._settings
            self.source: RowSource = stack.enter_context(open_rows(settings.rows))
            self.images = ImageSettings(root=self.source.folder)
            if settings.output is not None:
                check_output(settings.output, source=self.source.path, overwrite=settings.overwrite)
            self._stack = stack.pop_all()
        return self

    def check(self, seen: Callable[[R], None] = lambda _: None) -> None:
        """Read all rows once, report the bad ones, show the good ones to `seen`; open the journal.

        Raises:
            InputError: there is no good row, the ids do not fit a Parquet output, or another job
                is writing the output.
        """
        self._watcher.begin("checking rows", None)
        ids = IdColumn()
        for row in self._read():
            if not isinstance(row, RowError):
                self.good += 1
                ids.add(row.line, row.id)
                seen(row)
        if not self.good:
            raise InputError(f"no row of {self.source.name} can be used: {self._why_none()}")
        output = self._settings.output
        path = None
        if output is not None:
            written = Path(os.path.realpath(output)) if output.is_symlink() else output
            # Beside the file itself, not beside a link to it: two jobs never write one file.
            path = written.with_name(written.name + JOURNAL_SUFFIX)
            if written.suffix.lower() == PARQUET:
                ids.check(output)
        self.journal = Journal(path)
        self._stack.callback(self._close_journal)
        self.resumed = len(self.journal) > 0
        if self.resumed:
            self._watcher.resumed(len(self.journal))

    def _why_none(self) -> str:
        if self._bad:
            return f"all {len(self._bad)} are bad"
        shard = self._settings.shard
        return "it is empty" if shard.count == 1 else f"none is in part {shard.index} of it"

    def keep(self, reward: ProcessReward, asker: str) -> KeptReward:
        """A process reward that keeps what it has scored in this job's journal.

        Args:
            reward: who is asked.
            asker: names the model, the profile and all else that decides a score.
        """
        self._reward = KeptReward(reward, self.journal, self.images, asker)
        return self._reward

    def pieces(self, what: str) -> Iterator[list[R]]:
        """The good rows, some at a time; a row that has become bad meanwhile is reported now."""
        self._watcher.begin(what, self.good)
        for piece in self._pieces():
            yield piece
            self._advance(piece)
        self._finished = True

    def scored(
        self, what: str, reward: KeptReward, rollouts_of: Callable[[R], Sequence[Rollout]]
    ) -> Iterator[list[tuple[R, list[ProcessScore]]]]:
        """As `pieces`, each row with the scores of its rollouts; the next ones are on their way.

        Args:
            what: the work, for people.
            reward: who scores.
            rollouts_of: the rollouts of a row.
        """

        def score(piece: list[R]) -> list[tuple[R, list[ProcessScore]]]:
            rollouts = [rollouts_of(row) for row in piece]
            scores = iter(reward.score([rollout for several in rollouts for rollout in several]))
            return [
                (row, [next(scores) for _ in several])
                for row, several in zip(piece, rollouts, strict=True)
            ]

        self._watcher.begin(what, self.good)
        for piece, found in ahead(score, self._pieces(), PIECES_AT_ONCE):
            yield found
            self._advance(piece)
        self._finished = True

    def _pieces(self) -> Iterator[list[R]]:
        rows = (row for row in self._read() if not isinstance(row, RowError))
        while piece := list(islice(rows, self._settings.rows_at_once)):
            yield piece

    def _advance(self, piece: Sequence[R]) -> None:
        self._watcher.advance(len(piece), self._reward.computed if self._reward else 0)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A function that takes one record to the output, if there is one."""
        if self._settings.output is None:
            yield lambda _: None
        else:
            with atomic_output(self._settings.output) as write:
                yield write

    def _read(self) -> Iterator[R | RowError]:
        settings = self._settings
        for row in self.source.read(self._row_of, self.images, settings.limit, settings.shard):
            if isinstance(row, RowError) and row.line not in self._bad:
                self._bad.add(row.line)
                self._watcher.bad_row(row)
            yield row

    def _close_journal(self) -> None:
        try:
            count = 0 if self._finished else len(self.journal)
        except InputError:
            # What broke the journal has ended the job: that is the error to be seen, not this one.
            self.journal.close()
            return
        if not count:
            self.journal.delete()
        else:
            self.journal.close()
            if self.journal.path is not None:
                self._watcher.kept(count, self.journal.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._finished = False
        self._stack.close()
