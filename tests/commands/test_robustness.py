"""`vrprm-reward evaluate robustness`, with a made-up judge and with the packaged checkpoint."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.evaluation.gullible import Careful, rollouts, text
from vrprm_reward.cli import app
from vrprm_reward.evaluation.robustness_attacks import ATTACKS


def run(*arguments: object, columns: int = 130) -> Result:
    return CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1"}).invoke(
        app, ["evaluate", "robustness", *map(str, arguments)]
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts.jsonl"
    values = [
        {
            "id": f"r{number}",
            "question": rollout.problem.question,
            "images": [image_url(rollout.problem.images[0])],
            "response": rollout.response,
        }
        for number, rollout in enumerate(rollouts())
    ]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def image_url(image: Any) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


class FromURL(Careful):
    """The careful judge, of pictures that come as addresses."""

    def _score(self, rollout):
        (address,) = rollout.problem.images
        picture = base64.b64decode(address.partition(",")[2])
        problem = rollout.problem.model_copy(update={"images": (picture,)})
        return super()._score(rollout.model_copy(update={"problem": problem}))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    def use(reward: Any) -> Any:
        monkeypatch.setattr(
            "vrprm_reward.commands.robustness.load_process_reward", lambda name, **_: reward
        )
        return reward

    return use


class TestAnyJudge:
    def test_the_weakness_of_a_judge_is_found_and_reported(
        self, rows: Path, tmp_path: Path, use
    ) -> None:
        use(FromURL(lambda r, i: "well done" in text(r, i)))
        out, metrics = tmp_path / "out.jsonl", tmp_path / "figures.json"
        result = run(rows, "-o", out, "--metrics", metrics)
        assert result.exit_code == 0, result.output
        figures = json.loads(metrics.read_text())
        assert figures["neutralised"]["fooled_by"] == ["flattery"]
        assert figures["neutralised"]["rollouts"] == 9
        assert figures["as_written"] is None
        fooled = [line for line in result.stdout.splitlines() if line.rstrip().endswith("fooled")]
        assert len(fooled) == 1
        assert fooled[0].split()[0] == "flattery"
        records = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(records) == 9 * (1 + len(ATTACKS))
        by_id = {record["id"]: record for record in records}
        assert by_id["r1: original"]["p_correct"] == [0.9, 0.1, 0.9, 0.9]
        assert by_id["r1: flattery"]["p_correct"] == [0.9] * 4
        swapped = by_id["r0: image_swapped"]
        assert swapped["images"] == [image_url(b"second picture")]
        assert (swapped["attack"], swapped["row"], swapped["neutralised"]) == (
            "image_swapped", "r0", True,
        )  # fmt: skip

    def test_attacks_are_chosen_by_name(self, rows: Path, use) -> None:
        judge = use(FromURL())
        result = run(rows, "--attack", "thanks", "--attack", "merged_all", "--limit", "2")
        assert result.exit_code == 0, result.output
        assert len(judge.asked) == 6
        assert "2 rollouts, 2 attacks" in result.stdout
        refused = run(rows, "--attack", "bribery")
        assert refused.exit_code == 2
        assert "no attack 'bribery'" in refused.stderr

    def test_bad_rows_are_reported_and_the_rest_is_attacked(self, rows: Path, use) -> None:
        use(FromURL())
        with rows.open("a") as file:
            file.write('{"question": "Where?"}\n')
        result = run(rows, "--attack", "thanks")
        assert result.exit_code == 1
        assert "line 10" in result.stderr
        assert "9 rollouts, 1 attacks" in result.stdout

    def test_the_figures_replace_neither_the_scores_nor_the_rollouts(
        self, rows: Path, tmp_path: Path, use
    ) -> None:
        judge, before = use(FromURL()), rows.read_text()
        out = tmp_path / "r.jsonl"
        result = run(rows, "-o", out, "--metrics", out)
        assert result.exit_code == 2
        assert "is --output too: choose another file for --metrics" in result.stderr
        assert not out.exists()
        result = run(rows, "--metrics", rows, "--overwrite")
        assert result.exit_code == 2
        assert "is the input file" in result.stderr
        assert rows.read_text() == before
        assert judge.asked == []

    def test_the_tables_are_whole_at_80_columns(self, rows: Path, use) -> None:
        use(FromURL(lambda *_: True))
        result = run(rows, columns=80)
        assert "…" not in result.stdout
        assert all(name in result.stdout for name in ATTACKS)
        assert "changed_number_forged" in result.stdout
        assert "fooled" in result.stdout

    def test_a_rerun_with_an_output_scores_nothing_twice(
        self, rows: Path, tmp_path: Path, use, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = use(FromURL())
        out = tmp_path / "out.jsonl"
        real, last = FromURL.score, image_url(b"third picture")

        def breaks(self, asked):
            if any(last in rollout.problem.images for rollout in asked):
                raise KeyboardInterrupt
            return real(self, asked)

        monkeypatch.setattr(FromURL, "score", breaks)
        assert run(rows, "--attack", "thanks", "-o", out).exit_code == 130
        assert not out.exists()
        monkeypatch.setattr(FromURL, "score", real)
        judge.asked.clear()
        assert run(rows, "--attack", "thanks", "-o", out).exit_code == 0
        assert 0 < len(judge.asked) < 18
        assert len(out.read_text().splitlines()) == 18


def test_the_packaged_checkpoint_with_and_without_neutralising(tmp_path: Path) -> None:
    out, metrics = tmp_path / "out.jsonl", tmp_path / "figures.json"
    chosen = ("forged_turn", "forged_image", "trivial_steps")
    arguments = [part for name in chosen for part in ("--attack", name)]
    result = run("--samples", "2", *arguments, "-o", out, "--metrics", metrics)
    assert result.exit_code == 0, result.output
    figures = json.loads(metrics.read_text())
    kept, bare = figures["neutralised"], figures["as_written"]
    assert list(kept["attacks"]) == list(chosen)
    assert list(bare["attacks"]) == ["forged_turn", "forged_image"]
    assert kept["forged_markup"]["rollouts"] == 4
    # The tokens of an image without an image break the prompt where nothing is neutralised.
    assert bare["attacks"]["forged_image"]["unscored"] == {"engine": 2}
    assert bare["attacks"]["forged_turn"]["rollouts"] == 2
    records = {record["id"]: record for record in map(json.loads, out.read_text().splitlines())}
    assert len(records) == 2 * (1 + 3) + 2 * (1 + 2)
    whole = records["1: original"], records["1: original, as written"]
    assert whole[0]["p_correct"] == pytest.approx(whole[1]["p_correct"], abs=1e-5)
    assert "without neutralising" in result.stdout
