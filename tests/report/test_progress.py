import io
from pathlib import Path

import pytest
from rich.console import Console

from vrprm_reward.errors import RowError
from vrprm_reward.report import progress
from vrprm_reward.report.progress import JobProgress, pace


@pytest.mark.parametrize(
    ("done", "total", "computed", "seconds", "said"),
    [
        (64, 640, 64, 8.0, "8.0 rollouts/s, 1 min 12 s left"),
        (64, None, 64, 8.0, "8.0 rollouts/s"),
        (64, 128, 0, 0.5, "nothing new, 0.5 s left"),
        (0, 10, 0, 0.0, ""),
    ],
)
def test_the_pace_says_rate_and_time_left(
    done: int, total: int | None, computed: int, seconds: float, said: str
) -> None:
    assert pace(done, total, computed, seconds) == said


def written(shown: bool) -> list[str]:
    file = io.StringIO()
    with JobProgress(Console(file=file, width=200), shown=shown) as job:
        job.begin("scoring", 4)
        job.advance(2, 2)
        job.advance(2, 4)
        job.bad_row(RowError("broken", line=3))
        job.resumed(5)
        job.kept(1, Path("out.jsonl.unfinished"))
    return file.getvalue().splitlines()


TOLD = [
    "bad row: line 3: broken",
    "Going on from 5 finished pieces of work.",
    "kept: 1 finished piece of work in out.jsonl.unfinished: the same command goes on from there",
]


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(shown=True) == TOLD
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines = written(shown=True)
    assert lines[0].startswith("scoring: 2 of 4 rows, ")
    assert lines[1].startswith("scoring: 4 of 4 rows, ")
    assert lines[2:] == TOLD


def test_quiet_leaves_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert written(shown=False) == TOLD
