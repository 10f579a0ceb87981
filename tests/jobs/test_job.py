import json
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.doubles import LengthReward, Watching
from vrprm_reward.errors import EngineError, InputError
from vrprm_reward.jobs.job import PIECES_AT_ONCE, JobSettings, OfflineJob
from vrprm_reward.jobs.outputs import score_record
from vrprm_reward.jobs.rows import rollout_row
from vrprm_reward.jobs.source import Shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    return tmp_path


def write_rows(folder: Path, count: int = 20, *, extra: str = "") -> str:
    path = folder / "rows.jsonl"
    rows = [
        {"id": f"r{n}", "question": f"Q{n // 4}?", "images": "a.png", "response": f"A.\n\n{n}."}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + extra)
    return str(path)


def run(reward: Any, watcher: Watching, asker: str = "m", **settings: Any) -> None:
    """A whole job, as a command runs one."""
    with OfflineJob(JobSettings(**settings), rollout_row, watcher) as job:
        job.check()
        kept = job.keep(reward, asker)
        with job.writing() as write:
            for piece in job.scored("scoring", kept, lambda row: [row.rollout]):
                for row, (score,) in piece:
                    write(score_record(row, score, model="m", profile=None))


class Stopping(LengthReward):
    """Is interrupted after so many rollouts."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.lock = threading.Lock()

    def score(self, rollouts):
        with self.lock:
            if len(self.seen) >= self.after:
                raise KeyboardInterrupt
            return super().score(rollouts)


class TestResuming:
    def test_a_job_that_ended_early_goes_on_and_scores_nothing_twice(self, folder: Path) -> None:
        rows, whole, out = write_rows(folder), folder / "whole.jsonl", folder / "out.jsonl"
        run(LengthReward(), Watching(), rows=rows, output=whole)
        first, watcher = Stopping(after=8), Watching()
        with pytest.raises(KeyboardInterrupt):
            run(first, watcher, rows=rows, output=out, rows_at_once=4)
        assert watcher.kept_counts == [8]
        assert not out.exists()
        second, watcher = LengthReward(), Watching()
        run(second, watcher, rows=rows, output=out, rows_at_once=4)
        assert watcher.resumed_counts == [8]
        assert len(first.seen) + len(second.seen) == 20
        assert watcher.advanced[-1] == (4, 12)
        assert out.read_bytes() == whole.read_bytes()
        assert sorted(p.name for p in folder.iterdir()) == [
            "a.png",
            "out.jsonl",
            "rows.jsonl",
            "whole.jsonl",
        ]

    def test_rows_may_be_moved_and_added_meanwhile(self, folder: Path) -> None:
        rows, out = write_rows(folder), folder / "out.jsonl"
        with pytest.raises(KeyboardInterrupt):
            run(Stopping(after=8), Watching(), rows=rows, output=out, rows_at_once=4)
        lines = Path(rows).read_text().splitlines()
        Path(rows).write_text("\n".join(reversed(lines)))
        reward = LengthReward()
        run(reward, Watching(), rows=rows, output=out)
        assert len(reward.seen) == 12
        ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
        assert ids == [f"r{n}" for n in reversed(range(20))]

    def test_another_model_starts_anew(self, folder: Path) -> None:
        rows, out = write_rows(folder), folder / "out.jsonl"
        with pytest.raises(KeyboardInterrupt):
            run(Stopping(after=8), Watching(), rows=rows, output=out, rows_at_once=4)
        reward = LengthReward()
        run(reward, Watching(), asker="other", rows=rows, output=out)
        assert len(reward.seen) == 20

    def test_a_job_that_did_nothing_leaves_nothing(self, folder: Path) -> None:
        rows, out = write_rows(folder), folder / "out.jsonl"
        watcher = Watching()
        with pytest.raises(KeyboardInterrupt):
            run(Stopping(after=0), watcher, rows=rows, output=out)
        assert watcher.kept_counts == []
        assert sorted(p.name for p in folder.iterdir()) == ["a.png", "rows.jsonl"]

    @pytest.mark.parametrize("name", ["out.jsonl", "link.jsonl"])
    def test_a_second_job_with_the_same_output_is_refused(self, folder: Path, name: str) -> None:
        rows = write_rows(folder)
        (folder / "link.jsonl").symlink_to("out.jsonl")
        first = JobSettings(rows=rows, output=folder / "out.jsonl")
        second = JobSettings(rows=rows, output=folder / name)
        with OfflineJob(first, rollout_row, Watching()) as job:
            job.check()
            with (
                pytest.raises(InputError, match="in use by another job"),
                OfflineJob(second, rollout_row, Watching()) as other,
            ):
                other.check()

    def test_a_full_disk_ends_the_job_which_goes_on_when_there_is_space(self, folder: Path) -> None:
        rows, out = write_rows(folder, 400), folder / "out.jsonl"
        watcher = Watching()

        def run_out_of_space() -> None:
            settings = JobSettings(rows=rows, output=out, rows_at_once=4)
            with OfflineJob(settings, rollout_row, watcher) as job:
                job.check()
                kept = job.keep(LengthReward(), "m")
                for _ in job.scored("scoring", kept, lambda row: [row.rollout]):
                    job.journal._database.execute("PRAGMA max_page_count = 1")

        with pytest.raises(InputError, match="free space"):
            run_out_of_space()
        (before,) = watcher.kept_counts
        assert 4 <= before < 400
        reward, watcher = LengthReward(), Watching()
        run(reward, watcher, rows=rows, output=out)
        assert watcher.resumed_counts == [before]
        assert len(reward.seen) == 400 - before

    def test_a_journal_that_fails_hides_no_earlier_error(self, folder: Path) -> None:
        settings = JobSettings(rows=write_rows(folder), output=folder / "out.jsonl")

        def fail() -> None:
            with OfflineJob(settings, rollout_row, Watching()) as job:
                job.check()
                job.journal.close()
                raise EngineError("the first one")

        with pytest.raises(EngineError, match="the first one"):
            fail()


class TestParts:
    def test_the_parts_are_the_whole_and_no_problem_is_torn(self, folder: Path) -> None:
        rows = write_rows(folder, 80, extra="{bad\n")
        found: list[dict[str, Any]] = []
        bad: list[int] = []
        for index in (1, 2, 3):
            watcher, out = Watching(), folder / f"{index}.jsonl"
            run(LengthReward(), watcher, rows=rows, output=out, shard=Shard(index, 3))
            part = [json.loads(line) for line in out.read_text().splitlines()]
            assert not {r["question"] for r in part} & {r["question"] for r in found}
            found += part
            bad += watcher.bad
        assert sorted(r["line"] for r in found) == list(range(1, 81))
        assert bad == [81]

    def test_a_limit_counts_rows_of_the_file(self, folder: Path) -> None:
        rows, seen = write_rows(folder, 80), 0
        for index in (1, 2):
            reward = LengthReward()
            run(reward, Watching(), rows=rows, limit=40, shard=Shard(index, 2))
            seen += len(reward.seen)
        assert seen == 40

    @pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
    def test_a_part_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(InputError, match="write i/n"):
            Shard.parse(text)

    def test_an_empty_part_is_said_so(self, folder: Path) -> None:
        rows = write_rows(folder, 4)
        parts = [Shard(index, 60) for index in range(1, 61)]
        said = []
        for part in parts:
            try:
                run(LengthReward(), Watching(), rows=rows, shard=part)
            except InputError as error:
                said.append(str(error))
        assert len(said) == 59
        assert all("none is in part" in message for message in said)


KILLS = 20


class SlowlyLogging(LengthReward):
    """Writes down what it scored, in a file that several processes append to."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log

    def score(self, rollouts):
        with self._log.open("a") as file:
            file.write("".join(f"{rollout.response[-5:]!r}\n" for rollout in rollouts))
        time.sleep(0.002)
        return super().score(rollouts)


def test_kill_9_at_random_moments_changes_nothing_in_the_end(folder: Path) -> None:
    rows, whole, out = write_rows(folder, 400), folder / "whole.jsonl", folder / "out.jsonl"
    run(LengthReward(), Watching(), rows=rows, output=whole, rows_at_once=4)
    log, rng = folder / "log", random.Random(9)
    log.touch()
    job = {"rows": rows, "output": out, "rows_at_once": 4}
    # Forked, so that the kills hit the job and not the imports before it.
    context = multiprocessing.get_context("fork")
    for _ in range(KILLS):
        child = context.Process(target=run, args=(SlowlyLogging(log), Watching()), kwargs=job)
        enough = log.stat().st_size + rng.randrange(150)
        child.start()
        while log.stat().st_size < enough:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.005))
        assert child.is_alive()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert not out.exists()
    run(SlowlyLogging(log), Watching(), **job)
    assert out.read_bytes() == whole.read_bytes()
    scored = log.read_text().splitlines()
    assert len(set(scored)) == 400
    # At most the pieces that a kill interrupted are scored again.
    assert len(scored) <= 400 + 4 * PIECES_AT_ONCE * KILLS
    assert not [p.name for p in folder.iterdir() if p.name.endswith((".part", "-wal"))]
