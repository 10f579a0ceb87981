import asyncio
import json
from pathlib import Path

import pytest

from tests.jobs.doubles import LengthReward, Watching
from tests.jobs.test_job import run, write_rows
from vrprm_reward.errors import EngineError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.kept import MOST_TIMEOUTS, KeptReward
from vrprm_reward.types import Problem, ProcessScore, Rollout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    return tmp_path


class Dying(LengthReward):
    """Answers so many rollouts, and then none; images that are missing are noticed without it."""

    def __init__(self, after: int = 0, reason: str = "server_unreachable") -> None:
        super().__init__()
        self.after = after
        self.reason = reason

    def _score(self, rollout: Rollout) -> ProcessScore:
        if "no image" in rollout.response:
            return ProcessScore(status="unscored_ours", reason="image_missing", detail="no image")
        if len(self.seen) > self.after:
            return ProcessScore(
                status="unscored_ours", reason=self.reason, detail="http://host:1 is silent"
            )
        return super()._score(rollout)


def rollouts(*responses: str) -> list[Rollout]:
    problem = Problem(question="?", images=["a.png"])
    return [Rollout(problem=problem, response=response) for response in responses]


def kept(reward: LengthReward, folder: Path, journal: Journal) -> KeptReward:
    return KeptReward(reward, journal, ImageSettings(root=folder), "m")


@pytest.mark.parametrize("reason", ["server_unreachable", "server_timeout"])
def test_a_server_that_dies_ends_the_job_and_the_same_command_goes_on(
    folder: Path, reason: str
) -> None:
    rows, whole, out = write_rows(folder, 80), folder / "whole.jsonl", folder / "out.jsonl"
    run(LengthReward(), Watching(), rows=rows, output=whole)
    watcher = Watching()
    with pytest.raises(EngineError, match=r"http://host:1 is silent.*same command goes on"):
        run(Dying(20, reason), watcher, rows=rows, output=out, rows_at_once=20)
    assert watcher.kept_counts == [20]
    assert not out.exists()
    again, watcher = LengthReward(), Watching()
    run(again, watcher, rows=rows, output=out)
    assert watcher.resumed_counts == [20]
    assert len(again.seen) == 60
    assert out.read_bytes() == whole.read_bytes()


def test_images_that_are_missing_do_not_hide_that_the_server_is_gone(folder: Path) -> None:
    with Journal(folder / "j") as journal:
        each = kept(Dying(), folder, journal)
        with pytest.raises(EngineError, match="no longer scores"):
            each.score(rollouts("no image", "One."))
        assert len(journal) == 0
        assert each.score(rollouts("no image"))[0].reason == "image_missing"


def test_without_a_file_nothing_is_said_to_be_kept(folder: Path) -> None:
    with (
        Journal(None) as journal,
        pytest.raises(EngineError, match=r"again, give the same command again$"),
    ):
        kept(Dying(), folder, journal).score(rollouts("One."))


def test_a_server_that_answers_some_of_a_piece_is_not_gone(folder: Path) -> None:
    with Journal(None) as journal:
        scores = kept(Dying(after=2), folder, journal).score(rollouts("One.", "fail"))
        assert [score.reason for score in scores] == [None, "engine"]

    class First(Dying):
        def _score(self, rollout: Rollout) -> ProcessScore:
            self.after = 99 if rollout.response == "One." else 0
            return super()._score(rollout)

    with Journal(None) as journal:
        scores = kept(First(), folder, journal).score(rollouts("One.", "Two."))
    assert [score.reason for score in scores] == [None, "server_unreachable"]


def test_rollouts_that_time_out_by_their_own_doing_do_not_end_the_job(folder: Path) -> None:
    few = [f"{n}." for n in range(MOST_TIMEOUTS - 1)]
    reward = Dying(reason="server_timeout")
    with Journal(None) as journal:
        each = kept(reward, folder, journal)
        assert {score.reason for score in each.score(rollouts(*few))} == {"server_timeout"}
        reward.after = 99
        each.score(rollouts("answered"))
        reward.after = 0
        each.score(rollouts(*(f"a {text}" for text in few)))
        with pytest.raises(EngineError, match="no longer scores"):
            asyncio.run(each.ascore(rollouts("one too many")))


def test_a_job_of_several_pieces_writes_unscored_rows_where_the_server_lives(folder: Path) -> None:
    rows, out = write_rows(folder, 4), folder / "out.jsonl"
    run(Dying(2, "server_timeout"), Watching(), rows=rows, output=out, rows_at_once=2)
    reasons = [json.loads(line)["reason"] for line in out.read_text().splitlines()]
    assert reasons.count("server_timeout") == 2
