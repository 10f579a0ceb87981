import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from benchmarks.world_files import write_world
from tests.jobs.doubles import LengthReward
from vrprm_reward.cli import app
from vrprm_reward.demo.evaluate import held_out
from vrprm_reward.errors import InputError, RowError
from vrprm_reward.evaluation.visualprocessbench import benchmark_row, find_rows
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields
from vrprm_reward.scoring.profile import load_profile
from vrprm_reward.types import ProcessScore, Rollout, Usage

RESPONSE = {"steps": ["One.", "Two.", "Three."], "process_correctness": [1, 0, -1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"not looked into")
    return tmp_path


def row(**more: object) -> dict[str, Any]:
    return {
        "image": ["images/a.png"],
        "question": "How many <image1>?",
        "answer": "3",
        "response": RESPONSE,
        "policy_model": "GPT-4o",
        "data_source": "MMMU_DEV_VAL",
        **more,
    }


def read(folder: Path, **more: object):
    fields = Fields(json.loads(json.dumps(row(**more))), 5)
    return benchmark_row(fields, ImageSettings(root=folder))


class TestReading:
    def test_a_row_of_the_benchmark(self, folder: Path) -> None:
        found = read(folder)
        assert (found.id, found.source, found.policy_model) == (5, "MMMU_DEV_VAL", "GPT-4o")
        assert found.labels == (1, 0, -1)
        assert [step.text for step in found.rollout.steps or ()] == RESPONSE["steps"]
        assert found.rollout.problem.question == "How many <image1>?"

    def test_images_may_lie_in_the_folder_images(self, folder: Path) -> None:
        assert read(folder, image="a.png").rollout.problem.images == ("images/a.png",)

    def test_a_blank_step_keeps_its_label_and_has_no_prediction(self, folder: Path) -> None:
        found = read(
            folder, response={"steps": ["One.", " ", "Two."], "process_correctness": [1, -1, 1]}
        )
        score = ProcessScore(
            status="scored", steps=found.rollout.steps or (), p_correct=(0.25, 0.75)
        )
        assert found.p_correct(score) == [0.25, None, 0.75]

    @pytest.mark.parametrize(
        ("more", "field", "said"),
        [
            ({"response": "One."}, "response", "give an object"),
            ({"response": {"steps": ["a"]}}, "response.process_correctness", "null for 1 steps"),
            (
                {"response": {"steps": ["a"], "process_correctness": [1, 1]}},
                "response.process_correctness",
                "2 labels for 1 steps",
            ),
            (
                {"response": {"steps": ["a"], "process_correctness": [2]}},
                "response.process_correctness[0]",
                "a label is 1, 0",
            ),
            ({"image": ["images/no.png"]}, "image[0]", "No such file"),
            ({"image": None}, "images", "missing"),
        ],
    )
    def test_a_bad_row_is_refused_with_its_field(
        self, folder: Path, more: dict[str, object], field: str, said: str
    ) -> None:
        with pytest.raises(RowError, match=said) as caught:
            read(folder, **more)
        assert caught.value.field == field

    def test_the_file_of_rows_is_found_in_its_folder(self, folder: Path) -> None:
        with pytest.raises(InputError, match="has none"):
            find_rows(folder)
        (folder / "other.jsonl").touch()
        assert find_rows(folder).name == "other.jsonl"
        (folder / "more.jsonl").touch()
        with pytest.raises(InputError, match=r"more\.jsonl, other\.jsonl: name the file"):
            find_rows(folder)
        (folder / "test.jsonl").touch()
        assert find_rows(folder).name == "test.jsonl"


class WorldOracle:
    """Knows the labels of the world's held-out examples; one response it does not judge."""

    def __init__(self, count: int) -> None:
        examples = held_out(count)
        self.profile = load_profile("two_stage")
        self.truth = {
            (e.question, tuple(s.text for s in e.steps)): e.labels for e in reversed(examples)
        }
        self.unscored = examples[1]
        self.references: set[str | None] = set()

    def score(self, rollouts: list[Rollout]) -> list[ProcessScore]:
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> ProcessScore:
        self.references.add(rollout.problem.reference_answer)
        steps = rollout.steps or ()
        key = rollout.problem.question, tuple(step.text for step in steps)
        if key == (self.unscored.question, tuple(s.text for s in self.unscored.steps)):
            return ProcessScore(status="unscored_ours", reason="engine", detail="It is down.")
        return ProcessScore(
            status="scored",
            steps=steps,
            p_correct=tuple(0.9 if label else 0.2 for label in self.truth[key]),
            usage=Usage(prompt_tokens=100, generated_tokens=10, requests=3, rounds=2),
        )


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "130", "NO_COLOR": "1"}).invoke(
        app, ["evaluate", "visualprocessbench", *map(str, arguments)]
    )


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    def use(reward: Any) -> Any:
        monkeypatch.setattr(
            "vrprm_reward.commands.evaluate.load_process_reward", lambda name, **_: reward
        )
        return reward

    return use


class TestEndToEnd:
    def test_a_benchmark_of_the_world_is_measured(self, tmp_path: Path, use) -> None:
        write_world(tmp_path, problems=40, candidates=1)
        oracle = use(WorldOracle(40))
        out, metrics = tmp_path / "out.jsonl", tmp_path / "figures.json"
        result = run(tmp_path / "visualprocessbench", "-o", out, "--metrics", metrics)
        assert result.exit_code == 1
        figures = json.loads(metrics.read_text())
        pooled = figures["pooled"]
        assert pooled["rollouts"] == 40
        assert pooled["scored_rollouts"] == 39
        rows = [
            json.loads(line)
            for line in (tmp_path / "visualprocessbench/test.jsonl").read_text().splitlines()
        ]
        labels = [x for r in rows for x in r["response"]["process_correctness"]]
        assert pooled["steps"] == len([x for x in labels if x])
        assert pooled["neutral_steps"] == labels.count(0)
        missed = [x for x in rows[1]["response"]["process_correctness"] if x]
        assert pooled["invalid_steps"] == len(missed)
        hits, all_right = labels.count(1) - missed.count(1), labels.count(1)
        assert pooled["correct_f1"] == pytest.approx(2 * hits / (hits + all_right))
        assert pooled["scored_only"]["macro_f1"] == 1.0
        assert pooled["first_error_accuracy"] == pytest.approx(39 / 40)
        assert set(figures["by_source"]) == {r["data_source"] for r in rows}
        assert figures["cost"]["prompt_tokens_per_rollout"] == pytest.approx(100 * 39 / 40)
        assert oracle.references == {None}
        records = [json.loads(line) for line in out.read_text().splitlines()]
        assert records[0]["labels"] == rows[0]["response"]["process_correctness"]
        assert records[1]["p_of_labels"] is None
        assert "all (official)" in result.stdout

    def test_the_tables_are_whole_at_80_columns(self, tmp_path: Path, use) -> None:
        write_world(tmp_path, problems=10, candidates=1)
        use(WorldOracle(10))
        result = CliRunner(env={"COLUMNS": "80"}).invoke(
            app, ["evaluate", "visualprocessbench", str(tmp_path / "visualprocessbench")]
        )
        assert "…" not in result.stdout
        assert "incorrect  first error" in result.stdout

    def test_missing_images_are_listed_together_and_nothing_is_scored(
        self, folder: Path, use
    ) -> None:
        rows = [row(), row(image=["images/b.png"]), row(), row(image=["images/c.png"])]
        (folder / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        reward = use(LengthReward())
        result = run(folder)
        assert result.exit_code == 2
        assert "line 2, field 'image[0]': 'images/b.png'" in result.stderr
        assert "line 4, field 'image[0]': 'images/c.png'" in result.stderr
        assert "2 of 4 rows cannot be used" in result.stderr
        assert reward.seen == []

    def test_thousands_of_missing_images_do_not_flood_the_screen(self, folder: Path, use) -> None:
        rows = [row(image=[f"{n}.png"]) for n in range(300)] + [row()]
        (folder / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        use(LengthReward())
        result = run(folder)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 52
        assert "300 of 301 rows" in result.stderr

    def test_a_part_is_measured_with_limit_and_all_neutral_rows_do_no_harm(
        self, folder: Path, use
    ) -> None:
        neutral = {"steps": ["One."], "process_correctness": [0]}
        (folder / "test.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in [row(response=neutral), row()])
        )
        use(LengthReward())
        metrics = folder / "figures.json"
        assert run(folder, "--limit", "1", "--metrics", metrics).exit_code == 0
        figures = json.loads(metrics.read_text())
        assert figures["pooled"]["steps"] == 0
        assert figures["pooled"]["expected_calibration_error"] is None

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ((), False),
            (("--limit", "9"), False),
            (("--limit", "1"), True),
            (("--shard", "1/1"), False),
            (("--shard", "1/2"), True),
        ],
    )
    def test_the_figures_of_a_part_are_not_called_official(
        self, folder: Path, use, options: tuple[str, ...], part: bool
    ) -> None:
        (folder / "test.jsonl").write_text("".join(json.dumps(row()) + "\n" for _ in range(2)))
        use(LengthReward())
        metrics = folder / "figures.json"
        result = run(folder, *options, "--metrics", metrics)
        assert result.exit_code == 0
        assert ("all (official)" in result.stdout) == (not part)
        assert ("all of this part" in result.stdout) == part
        assert json.loads(metrics.read_text())["only_a_part_of_the_rows"] == part
