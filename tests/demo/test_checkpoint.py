"""The packaged checkpoint runs the main job through the same code as any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vrprm_reward import load_process_reward
from vrprm_reward.demo.evaluate import held_out, rollout_of
from vrprm_reward.process_reward import DEMO_FOLDER

SHAPES = Path(__file__).parents[2] / "examples" / "shapes" / "rollouts.jsonl"


def test_the_packaged_files_take_less_than_12_megabytes():
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) < 12_000_000


def test_the_command_line_scores_the_example_and_names_a_best_candidate(tmp_path):
    out = tmp_path / "scores.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "vrprm_reward.cli", "score", str(SHAPES), "-o", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Best of 4 by mean p" in done.stdout
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["misread", "slip", "right", "recovered"]
    assert all(row["status"] == "scored" and row["thinking"] for row in rows)


def test_both_schedules_agree_on_the_packaged_checkpoint():
    rollouts = [rollout_of(example) for example in held_out(12)]
    found = []
    for schedule in ("lockstep", "fixed_point"):
        reward = load_process_reward("demo", schedule=schedule)
        found.append(reward.score(rollouts))
        reward.close()
    for one, other in zip(*found, strict=True):
        assert one.scored
        assert one.judgements == other.judgements
        assert one.p_correct == pytest.approx(other.p_correct, abs=1e-5)
        assert other.usage.rounds <= len(other.steps)
