import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.jobs.doubles import LengthReward
from vrprm_reward.cli import app
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.process_reward import load_process_reward
from vrprm_reward.scoring.profile import load_profile
from vrprm_reward.types import ProcessScore, Rollout


class Noting(LengthReward):
    """Remembers which reference answers it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str | None] = []
        self.profile = load_profile("two_stage")

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        self.references += [rollout.problem.reference_answer for rollout in rollouts]
        return super().score(rollouts)


@pytest.fixture
def reward(monkeypatch: pytest.MonkeyPatch) -> Noting:
    reward = Noting()
    monkeypatch.setattr(
        "vrprm_reward.commands.best_of_n.load_process_reward", lambda name, **_: reward
    )
    return reward


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    rows = [
        # Steps of 16 and 15 characters: mean p .65 and .55 against .75 (17 characters).
        {"id": "p1", "candidates": ["The answer is 3.", "The answer is 12."], "answer": "12"},
        {"id": "p2", "candidates": ["The answer is 3.", "", "fail"], "reference_answer": "3"},
        {"id": "p3", "candidates": ["The answer is 7."]},
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text(
        "".join(json.dumps({"question": "?", "images": "a.png", **r}) + "\n" for r in rows)
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(
        app, ["best-of-n", *map(str, arguments), "--outcome", "exact"]
    )


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_choices_scores_and_outcomes_are_written(reward: Noting, problems: Path) -> None:
    out = problems.with_name("out.jsonl")
    result = run(problems, "-o", out)
    assert result.exit_code == 1
    first, second, third = records(out)
    assert first["chosen"]["mean"] == 1
    assert first["chosen"]["majority"] == 0
    assert [c["right"] for c in first["candidates"]] == [False, True]
    assert [c["scores"]["min"] for c in first["candidates"]] == [0.65, 0.75]
    assert set(second["chosen"].values()) == {0}
    assert [c["status"] for c in second["candidates"]] == [
        "scored",
        "unscored_response",
        "unscored_ours",
    ]
    assert second["candidates"][1]["scores"]["mean"] is None
    assert third["candidates"][0]["right"] is None
    assert {r["reference_shown"] for r in (first, second, third)} == {False}
    assert {r["weight"] for r in (first, second, third)} == {"mean"}
    assert "6 candidates: 4 scored" in result.stdout


def test_the_reference_answer_is_not_shown_unless_asked_for(reward: Noting, problems: Path) -> None:
    result = run(problems)
    assert set(reward.references) == {None}
    assert "The reference answer was not shown to the reward model." in result.stdout
    reward.profile = reward.profile.model_copy(update={"show_reference": True})
    reward.references.clear()
    result = run(problems, "--show-reference")
    assert reward.references == ["12", "12", "3", "3", "3", None]
    assert "The reference answer was SHOWN to the reward model." in result.stdout


def test_a_profile_that_never_shows_it_refuses_to_be_asked(reward: Noting, problems: Path) -> None:
    result = run(problems, "--show-reference")
    assert result.exit_code == 2
    assert "never shows reference answers" in result.stderr
    assert reward.seen == []


def test_accuracy_for_every_n_is_printed_and_written(reward: Noting, problems: Path) -> None:
    summary = problems.with_name("summary.json")
    result = run(problems, "--summary", summary)
    figures = json.loads(summary.read_text())
    assert figures["problems"] == 2
    assert figures["problems_without_known_outcome"] == 1
    # p1: N = 1 one half, N = 2 right; p2: its only scored candidate is right: 1/3, 2/3, 3/3.
    assert figures["accuracy"]["mean"] == {
        "1": pytest.approx((1 / 2 + 1 / 3) / 2),
        "2": pytest.approx((1 + 2 / 3) / 2),
        "3": pytest.approx(1),
    }
    assert figures["accuracy"]["pass@n"]["3"] == 1
    assert "N = 3" in result.stdout
    assert "Left out: 1 problems" in result.stdout


def test_records_go_to_standard_output_and_words_to_standard_error(
    reward: Noting, problems: Path
) -> None:
    result = run(problems, "-o", "-")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["p1", "p2", "p3"]
    assert "N = 3" in result.stderr


def test_a_place_for_the_figures_is_looked_at_before_any_scoring(
    reward: Noting, problems: Path
) -> None:
    result = run(problems, "--summary", problems.parent / "no" / "summary.json")
    assert result.exit_code == 2
    assert "mkdir -p" in result.stderr
    mine = problems.with_name("mine.json")
    mine.write_text("mine")
    result = run(problems, "--summary", mine)
    assert "exists" in result.stderr
    assert mine.read_text() == "mine"
    assert reward.seen == []


@pytest.mark.parametrize("place", ["same.json", "./no/../same.json", "link.json"])
def test_the_figures_do_not_replace_the_choices(
    reward: Noting, problems: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(problems.parent)
    Path("no").mkdir()
    Path("link.json").symlink_to("same.json")
    result = run(problems, "-o", "same.json", "--summary", place, "--overwrite")
    assert result.exit_code == 2
    assert "is --output too: choose another file for --summary" in result.stderr
    assert not Path("same.json").exists()
    assert reward.seen == []


def test_the_figures_do_not_replace_an_output_by_another_name(
    reward: Noting, problems: Path
) -> None:
    out, other = problems.with_name("out.jsonl"), problems.with_name("other.json")
    out.write_text("old")
    other.hardlink_to(out)
    result = run(problems, "-o", out, "--summary", other, "--overwrite")
    assert "is --output too" in result.stderr
    assert out.read_text() == "old"


def test_the_figures_do_not_replace_the_problems(reward: Noting, problems: Path) -> None:
    before = problems.read_text()
    result = run(problems, "--summary", problems, "--overwrite")
    assert result.exit_code == 2
    assert "is the input file" in result.stderr
    assert problems.read_text() == before
    assert reward.seen == []


def test_figures_go_to_a_file_and_not_to_one_named_like_standard_output(
    reward: Noting, problems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(problems.parent)
    result = run(problems, "--summary", "-")
    assert result.exit_code == 2
    assert "--summary writes a file, and '-' is none" in result.stderr
    assert not Path("-").exists()
    assert reward.seen == []


def test_an_unknown_outcome_is_said_before_any_scoring(reward: Noting, problems: Path) -> None:
    result = CliRunner().invoke(app, ["best-of-n", str(problems), "--outcome", "nonsense"])
    assert result.exit_code == 2
    assert "unknown outcome 'nonsense'" in result.stderr
    assert reward.seen == []


def test_the_defaults_of_the_model_are_those_of_load_process_reward(
    problems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def load(name: str, **settings: Any) -> Noting:
        asked.update(settings)
        return Noting()

    monkeypatch.setattr("vrprm_reward.commands.best_of_n.load_process_reward", load)
    run(problems)
    del asked["images"]
    defaults = dict(load_process_reward.__kwdefaults__ or {})
    defaults["local"] = LocalOptions(cuda_graphs=True)  # nobody else is in a command's process
    assert asked == {name: defaults[name] for name in asked}
