"""`vrprm-reward evaluate visualprocessbench`: where its files may not go."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.jobs.doubles import LengthReward
from vrprm_reward.cli import app


@pytest.fixture
def reward(monkeypatch: pytest.MonkeyPatch) -> LengthReward:
    reward = LengthReward()
    monkeypatch.setattr(
        "vrprm_reward.commands.evaluate.load_process_reward", lambda name, **_: reward
    )
    return reward


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    row = {
        "image": "a.png",
        "question": "How many?",
        "response": {"steps": ["One."], "process_correctness": [1]},
    }
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "visualprocessbench", *map(str, arguments)])


def test_the_figures_do_not_replace_the_scores(reward: LengthReward, rows: Path) -> None:
    out = rows.with_name("x.json")
    result = run(rows.parent, "-o", out, "--metrics", out)
    assert result.exit_code == 2
    assert "is --output too: choose another file for --metrics" in result.stderr
    assert not out.exists()
    assert reward.seen == []


def test_the_figures_do_not_replace_the_rows_of_the_benchmark(
    reward: LengthReward, rows: Path
) -> None:
    before = rows.read_text()
    result = run(rows.parent, "--metrics", rows, "--overwrite")
    assert result.exit_code == 2
    assert "is the input file" in result.stderr
    assert rows.read_text() == before
    assert reward.seen == []
