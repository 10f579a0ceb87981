"""The offline jobs with the packaged checkpoint: that they run, not how well it judges."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.world_files import write_world
from vrprm_reward.cli import app


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, problems=1, candidates=2)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_choose_and_look(world: Path) -> None:
    chosen, page = world / "chosen.jsonl", world / "report.html"
    run("best-of-n", world / "problems.jsonl", "-o", chosen, "--outcome", "exact")
    (problem,) = lines(chosen)
    assert problem["profile"] == "demo"
    assert problem["chosen"]["mean"] in (0, 1)
    assert all(0 <= c["scores"]["mean"] <= 1 for c in problem["candidates"])
    run("report", chosen, "-o", page)
    assert problem["question"] in page.read_text()


def test_evaluate(world: Path) -> None:
    out, metrics = world / "steps.jsonl", world / "figures.json"
    bench = world / "visualprocessbench"
    run("evaluate", "visualprocessbench", bench, "-o", out, "--metrics", metrics)
    (row,), figures = lines(out), json.loads(metrics.read_text())
    assert len(row["p_of_labels"]) == len(row["labels"])
    assert figures["pooled"]["scored_rollouts"] == 1
    assert figures["cost"]["seconds_per_rollout"] > 0
