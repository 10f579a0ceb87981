"""The packaged checkpoint runs the main job through the same code as any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vrprm_reward import load_process_reward
from vrprm_reward.demo.evaluate import held_out, measure, rollout_of
from vrprm_reward.demo.recipe import READING_PROFILES, demo_profile
from vrprm_reward.process_reward import DEMO_NO_THINK, PACKAGED

SHAPES = Path(__file__).parents[2] / "examples" / "shapes" / "rollouts.jsonl"


def test_the_packaged_files_take_less_than_12_megabytes():
    files = [path for folder in PACKAGED.values() for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 12_000_000


@pytest.mark.parametrize("name", [None, *READING_PROFILES])
def test_the_checkpoint_without_thinking_judges_at_once_in_its_frames(name):
    profile = None if name is None else demo_profile(name)
    examples = held_out(30)
    reward = load_process_reward(DEMO_NO_THINK, profile=profile)
    found, scores = measure(reward, examples, [rollout_of(example) for example in examples])
    reward.close()
    assert found.unscored == 0
    assert found.macro_f1 > 0.9
    assert all(score.thinking is None and score.usage.generated_tokens == 0 for score in scores)


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
