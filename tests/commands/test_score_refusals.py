from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.scoring import Loader, WordReward, good, plain, records, run, write_rows
from vrprm_reward.errors import CheckpointError
from vrprm_reward.process_reward import load_process_reward
from vrprm_reward.steps import StepSettings
from vrprm_reward.types import ProcessScore, Rollout


@pytest.mark.usefixtures("loader")
class TestNothingDone:
    def refused(self, *arguments: str) -> str:
        result = run("score", *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return plain(result.stderr)

    def test_a_missing_file_is_one_clear_line(self) -> None:
        message = self.refused("no.jsonl")
        assert message.startswith("error: 'no.jsonl' cannot be read (No such file or directory)")

    def test_a_file_without_rows_is_said_so(self, folder: Path) -> None:
        assert self.refused(write_rows(folder)).endswith("can be used: it is empty")

    def test_a_file_of_bad_rows_only_loads_no_model_and_writes_nothing(
        self, folder: Path, loader: Loader
    ) -> None:
        out = folder / "out.jsonl"
        message = self.refused(write_rows(folder, "{bad", "[]"), "-o", str(out))
        assert message.endswith("can be used: all 2 are bad")
        assert loader.reward.calls == []
        assert not out.exists()

    def test_an_output_that_exists_needs_overwrite(self, folder: Path) -> None:
        rows, out = write_rows(folder, good()), folder / "out.jsonl"
        out.write_text("old")
        assert "pass --overwrite" in self.refused(rows, "-o", str(out))
        assert out.read_text() == "old"
        assert run("score", rows, "-o", str(out), "--overwrite").exit_code == 0
        assert len(records(out)) == 1

    def test_the_input_is_never_overwritten(self, folder: Path) -> None:
        rows = write_rows(folder, good())
        before = Path(rows).read_text()
        assert "is the input file" in self.refused(rows, "-o", rows, "--overwrite")
        assert Path(rows).read_text() == before

    def test_quiet_without_an_output_would_lose_the_scores(self, folder: Path) -> None:
        assert "needs --output" in self.refused(write_rows(folder, good()), "-q")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ("--split separator", "needs --separator TEXT"),
            ("--separator x", "needs --split separator"),
            ("--split lines", "'lines' is not one of"),
            ("--shard 3/2", "is no part of a whole: write i/n"),
            ("--limit 0", "greater than or equal to 1"),
            ("--nonsense", "No such option"),
        ],
    )
    def test_wrong_usage_is_explained(self, folder: Path, options: str, said: str) -> None:
        assert said in self.refused(write_rows(folder, good()), *options.split())

    def test_a_model_that_cannot_be_loaded_leaves_no_output(
        self, folder: Path, loader: Loader
    ) -> None:
        class Broken(WordReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
                raise CheckpointError("no checkpoint at 'x':\npass a folder")

        loader.reward = Broken(StepSettings())
        out = folder / "out.jsonl"
        message = self.refused(write_rows(folder, good()), "-o", str(out))
        assert message == "error: no checkpoint at 'x': pass a folder"
        assert sorted(p.name for p in folder.iterdir()) == ["a.png", "elsewhere", "rows.jsonl"]

    def test_an_unknown_profile_is_one_clear_line(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vrprm_reward.commands.score.load_process_reward", load_process_reward)
        message = self.refused(write_rows(folder, good()), "--profile", "nonsense")
        assert message.startswith("error: no profile 'nonsense': pass the path")

    def test_a_full_disk_is_one_clear_line(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(record: object) -> bytes:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("vrprm_reward.jobs.outputs.json_line", full)
        result = run("score", write_rows(folder, good()), "-o", str(folder / "out.jsonl"))
        assert result.exit_code == 2
        assert "No space left on device" in result.stderr
        assert not (folder / "out.jsonl").exists()
