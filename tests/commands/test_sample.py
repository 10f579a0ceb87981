import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from benchmarks.world_files import write_world
from benchmarks.world_policy import NoisySolver, OracleReward, tasks
from vrprm_reward.cli import app
from vrprm_reward.engines.openai.errors import ServerUnreachableError
from vrprm_reward.types import Problem

COUNT = 6


class ByQuestion:
    """Solver and oracle that know a problem whose image is a path."""

    identity = "by question"

    def __init__(self, root: Path) -> None:
        self.solver = NoisySolver(tuple(tasks(COUNT)), root=root)
        self.oracle = OracleReward(self.solver)
        self.root = root
        self.fails_after: int | None = None
        self.asked = 0
        self.scored = 0

    async def propose(self, problem: Problem, prefix: tuple[str, ...], n: int, *, seed: int):
        if self.fails_after is not None and self.asked >= self.fails_after:
            raise ServerUnreachableError("the policy's server is gone")
        self.asked += 1
        return await self.solver.propose(problem, prefix, n, seed=seed)

    async def ascore(self, rollouts: list[Any]):
        self.scored += len(rollouts)
        return await self.oracle.ascore(rollouts)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ByQuestion:
    write_world(tmp_path, problems=COUNT, candidates=1)
    both = ByQuestion(tmp_path)
    monkeypatch.setattr("vrprm_reward.commands.sample.load_process_reward", lambda name, **_: both)
    monkeypatch.setitem(sys.modules, "my_policies", type(sys)("my_policies"))
    sys.modules["my_policies"].policy = both  # type: ignore[attr-defined]
    return both


def run(world: ByQuestion, *arguments: object, policy: str = "my_policies:policy") -> Result:
    return CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(
        app,
        [
            *("sample", str(world.root / "tasks.jsonl"), "-o", str(world.root / "out")),
            *("--policy", policy, *map(str, arguments)),
        ],
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_kind_of_training_data_is_written(world: ByQuestion) -> None:
    result = run(world, "--samples", 2)
    assert result.exit_code == 0, result.output
    out = world.root / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "labels.jsonl",
        "pairs.jsonl",
        "sft.jsonl",
        "trajectories.jsonl",
    ]
    found = lines(out / "trajectories.jsonl")
    assert [(r["id"], r["sample"]) for r in found[:3]] == [("p0", 0), ("p0", 1), ("p1", 0)]
    conversations = lines(out / "sft.jsonl")
    assert len(conversations) == 2 * COUNT
    for conversation in conversations:
        (image,) = conversation["images"]
        assert (out / image).is_file()
        assert conversation["messages"][0]["content"].startswith("<image>")
    truth = ["\n\n".join(task.truth) for task in world.solver.tasks]
    assert [c["messages"][1]["content"] for c in conversations] == [t for t in truth for _ in "12"]
    assert all(pair["p_chosen"] >= 0.5 > pair["p_rejected"] for pair in lines(out / "pairs.jsonl"))
    labels = lines(out / "labels.jsonl")
    assert all(len(row["steps_with_score"]) >= 1 for row in labels)
    assert "12 searches: 12 solutions accepted" in result.stdout
    assert "Per accepted solution:" in result.stdout


def test_a_job_whose_policy_died_goes_on_and_pays_for_nothing_twice(world: ByQuestion) -> None:
    assert run(world).exit_code == 0
    whole = {p.name: p.read_bytes() for p in (world.root / "out").iterdir()}
    asked, scored = world.asked, world.scored
    world.asked = world.scored = 0
    world.fails_after = 10
    result = run(world, "--overwrite")
    assert result.exit_code == 2
    assert "the policy's server is gone" in result.stderr
    assert "the same command goes on from there" in result.stderr
    world.fails_after = None
    assert run(world, "--overwrite").exit_code == 0
    assert {p.name: p.read_bytes() for p in (world.root / "out").iterdir()} == whole
    assert (world.asked, world.scored) == (asked, scored)


def test_results_are_not_replaced_unasked(world: ByQuestion) -> None:
    (world.root / "out").mkdir()
    (world.root / "out" / "pairs.jsonl").write_text("mine")
    result = run(world)
    assert result.exit_code == 2
    assert "pairs.jsonl' exists" in result.stderr
    assert (world.root / "out" / "pairs.jsonl").read_text() == "mine"


@pytest.mark.parametrize("name", ["trajectories", "sft", "pairs", "labels"])
def test_the_tasks_are_never_replaced_by_results(world: ByQuestion, name: str) -> None:
    (world.root / "out").mkdir()
    place = world.root / "out" / f"{name}.jsonl"
    place.symlink_to(world.root / "tasks.jsonl")
    before = place.read_text()
    result = run(world, "--overwrite")
    assert result.exit_code == 2
    assert f"{name}.jsonl' is the input file" in result.stderr
    assert place.read_text() == before
    assert world.scored == 0


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("http://127.0.0.1:1/v1", "name its model with --policy-model"),
        ("no_such_module:x", "there is no policy"),
        ("my_policies:x", "there is no policy"),
        ("json:decoder", "is no policy"),
    ],
)
def test_a_policy_that_cannot_be_used_is_said_before_any_work(
    world: ByQuestion, policy: str, said: str
) -> None:
    result = run(world, policy=policy)
    assert result.exit_code == 2
    assert said in result.stderr
    assert world.scored == 0


def test_results_go_to_a_folder_and_not_to_one_named_like_standard_output(
    world: ByQuestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    result = run(world, "-o", "-")
    assert result.exit_code == 2
    assert "name a folder" in result.stderr
    assert not Path("-").exists()


def test_a_broken_image_fails_its_own_problem(world: ByQuestion) -> None:
    (world.root / "images" / "p0.png").write_bytes(b"no image")
    result = run(world)
    assert result.exit_code == 1
    found = lines(world.root / "out" / "trajectories.jsonl")
    assert "p0.png" in found[0]["error"]
    assert [r["error"] for r in found[1:]] == [None] * (COUNT - 1)
    assert "1 searches without one (1 could not be asked)" in result.stdout
