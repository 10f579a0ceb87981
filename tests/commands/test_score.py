import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands.scoring import (
    QUESTION,
    Interrupted,
    Loader,
    WordReward,
    good,
    goods,
    records,
    run,
    write_rows,
)
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.job import PIECES_AT_ONCE, ROWS_AT_ONCE
from vrprm_reward.process_reward import load_process_reward
from vrprm_reward.steps import StepSettings
from vrprm_reward.types import ProcessScore, Rollout


@pytest.mark.usefixtures("loader")
class TestScoring:
    def test_all_rows_scored_is_status_0_with_a_table_and_a_summary(self, folder: Path) -> None:
        result = run("score", write_rows(folder, good(id="r1"), good("wrong", id="r2")))
        assert result.exit_code == 0
        assert QUESTION in result.stdout
        assert "r1  mean p 0.875" in result.stdout
        assert "   1 █████████░ 0.875   Three." in result.stdout
        assert "r2  mean p 0.125  wrong: 1" in result.stdout
        assert "Best of 2 by mean p: r1, 0.875" in result.stdout
        assert re.search(
            r"2 rows: 2 scored · \d+\.\d s · 200 prompt \+ 10 generated tokens", result.stdout
        )
        assert result.stderr == ""

    def test_a_bad_row_is_reported_with_line_and_field_and_the_rest_is_scored(
        self, folder: Path
    ) -> None:
        rows = write_rows(folder, good(), "{bad", good(question=""), good(id="last"))
        result = run("score", rows)
        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            "bad row: line 2: not JSON (Expecting property name enclosed in double quotes at "
            "character 2): write one object per line",
            "bad row: line 3, field 'question': empty: give the question that the response answers",
        ]
        assert "last  mean p 0.875" in result.stdout
        assert "4 rows: 2 scored · 2 bad" in result.stdout

    def test_an_unscored_row_is_status_1_with_its_reason(self, folder: Path) -> None:
        result = run("score", write_rows(folder, good(), good("", id="r2")))
        assert result.exit_code == 1
        assert "r2  unscored_response: response_empty" in result.stdout
        assert "2 rows: 1 scored · 1 unscored (1 response_empty)" in result.stdout

    def test_scores_are_written_in_input_order_without_the_bad_rows(self, folder: Path) -> None:
        rows = write_rows(folder, good(id="b"), "[]", good("", id="a"), good("wrong"))
        out = folder / "out.jsonl"
        result = run("score", rows, "-o", str(out))
        assert result.exit_code == 1
        assert f"Scores are in {out}" in result.stdout
        found = records(out)
        assert [(r["id"], r["line"], r["mean"]) for r in found] == [
            ("b", 1, 0.875),
            ("a", 3, None),
            (4, 4, 0.125),
        ]
        assert {(r["model"], r["profile"]) for r in found} == {("demo", "two_stage")}
        assert sorted(p.name for p in folder.iterdir()) == [
            "a.png",
            "elsewhere",
            "out.jsonl",
            "rows.jsonl",
        ]

    def test_rows_come_from_standard_input_with_paths_from_the_working_directory(
        self, folder: Path
    ) -> None:
        (folder / "elsewhere" / "here.png").write_bytes(b"")
        row = json.dumps(good(images="here.png", id="r1"))
        result = run("score", "-", stdin=row)
        assert result.exit_code == 0
        assert "r1  mean p 0.875" in result.stdout

    def test_scores_go_to_standard_output_and_words_to_standard_error(self, folder: Path) -> None:
        result = run("score", write_rows(folder, good(id="圆"), "{bad"), "-o", "-")
        (line,) = result.stdout.splitlines()
        assert json.loads(line)["id"] == "圆"
        assert "圆" in line
        assert "bad row: line 2" in result.stderr
        assert "2 rows: 1 scored · 1 bad" in result.stderr

    def test_quiet_leaves_bad_rows_and_the_summary_on_standard_error(self, folder: Path) -> None:
        out = str(folder / "out.jsonl")
        result = run("score", write_rows(folder, good(), "{bad"), "--quiet", "-o", out)
        assert result.stdout == ""
        assert "bad row: line 2" in result.stderr
        assert "2 rows: 1 scored · 1 bad" in result.stderr
        assert QUESTION not in result.stderr

    def test_thinking_is_printed_when_asked_for(self, folder: Path) -> None:
        rows = write_rows(folder, good())
        assert "Three circles are seen." not in run("score", rows).stdout
        assert "thinking: Three circles are seen." in run("score", rows, "--thinking").stdout

    def test_the_demo_model_is_called_a_demo(self, folder: Path) -> None:
        rows = write_rows(folder, good())
        assert "demo model" in run("score", rows).stdout
        assert "demo model" not in run("score", rows, "--model", "x/y").stdout

    def test_limit_scores_the_first_rows_only(self, folder: Path) -> None:
        result = run("score", write_rows(folder, *[good()] * 5), "--limit", "2")
        assert "2 rows: 2 scored" in result.stdout

    def test_the_parts_of_a_sharded_job_are_the_whole(self, folder: Path) -> None:
        rows = write_rows(folder, *[good(question=f"Q{n}?", id=n) for n in range(40)])
        ids = []
        for part in ("1/2", "2/2"):
            out = folder / f"{part[0]}.jsonl"
            assert run("score", rows, "--shard", part, "-q", "-o", str(out)).exit_code == 0
            ids += [record["id"] for record in records(out)]
        assert sorted(ids) == list(range(40))

    def test_images_in_the_output_are_found_from_its_own_folder(self, folder: Path) -> None:
        out = folder / "elsewhere" / "out.jsonl"
        run("score", write_rows(folder, good(images=["a.png", "data:,x"])), "-o", str(out))
        assert records(out)[0]["images"] == ["../a.png", "data:,x"]

    def test_nothing_is_wider_than_the_terminal(self, folder: Path) -> None:
        rows = write_rows(folder, good("图中有三个红色的圆圈" * 30, id="x" * 30), good("a " * 300))
        result = run("score", rows, columns=60)
        assert max(map(len, result.stdout.splitlines())) <= 60


class TestWhatTheModelIsAskedFor:
    def test_the_defaults_are_those_of_load_process_reward(
        self, folder: Path, loader: Loader
    ) -> None:
        run("score", write_rows(folder, good()))
        assert loader.name == "demo"
        defaults = load_process_reward.__kwdefaults__ or {}
        images = loader.settings.pop("images")
        assert images == ImageSettings(root=folder)
        # Nobody else uses the GPU in a command's process.
        assert loader.settings.pop("local") == replace(defaults["local"], cuda_graphs=True)
        assert loader.settings == {name: defaults[name] for name in loader.settings}

    def test_every_option_reaches_it(self, folder: Path, loader: Loader) -> None:
        options = (
            "--model x/y --profile p.toml --device cuda:1 --dtype bfloat16 "
            "--schedule fixed_point --pass-tokens 99 --split numbered --part answer"
        )
        run("score", write_rows(folder, good()), *options.split())
        del loader.settings["images"]
        assert loader.name == "x/y"
        assert loader.settings == {
            "profile": "p.toml",
            "steps": StepSettings(rule="numbered", part="answer"),
            "schedule": "fixed_point",
            "local": LocalOptions(
                device="cuda:1", dtype="bfloat16", pass_tokens=99, cuda_graphs=True
            ),
        }

    @pytest.mark.parametrize(
        ("given", "meant"),
        [(r"\n", "\n"), (r"\n\n步\t", "\n\n步\t"), (r"\\n", r"\n"), (r"\[", r"\["), ("##", "##")],
    )
    def test_a_separator_understands_escapes_and_leaves_the_rest(
        self, folder: Path, loader: Loader, given: str, meant: str
    ) -> None:
        run("score", write_rows(folder, good()), "--split", "separator", "--separator", given)
        assert loader.settings["steps"].separator == meant

    def test_rows_are_handed_over_some_at_a_time_and_the_reward_is_closed(
        self, folder: Path, loader: Loader
    ) -> None:
        result = run("score", write_rows(folder, *goods(ROWS_AT_ONCE + 3)))
        assert result.exit_code == 0
        assert sorted(loader.reward.calls) == [3, ROWS_AT_ONCE]
        assert loader.reward.closed

    def test_all_rows_are_checked_before_the_first_is_scored(
        self, folder: Path, loader: Loader
    ) -> None:
        reported: list[bool] = []

        class Watching(WordReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
                reported.append("line 99" in sys.stderr.buffer.getvalue().decode())  # type: ignore[attr-defined]
                return super().score(rollouts)

        loader.reward = Watching(StepSettings())
        result = run("score", write_rows(folder, *goods(98), "{bad"))
        assert "line 99" in result.stderr
        assert reported == [True, True]
        assert result.stderr.count("line 99") == 1

    def test_an_image_that_vanishes_meanwhile_makes_its_row_bad(
        self, folder: Path, loader: Loader
    ) -> None:
        class Vandal(WordReward):
            def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
                (folder / "b.png").unlink(missing_ok=True)
                return super().score(rollouts)

        (folder / "b.png").write_bytes(b"")
        loader.reward = Vandal(StepSettings())
        before = PIECES_AT_ONCE * ROWS_AT_ONCE  # what is read before the first score is there
        result = run("score", write_rows(folder, *goods(before), good(images="b.png")))
        assert result.exit_code == 1
        assert f"line {before + 1}, field 'images'" in result.stderr
        assert f"{before} scored · 1 bad" in result.stdout


def test_an_interrupt_in_the_middle_is_status_130_and_keeps_the_old_output(
    folder: Path, loader: Loader
) -> None:
    loader.reward = Interrupted(StepSettings())
    out = folder / "out.jsonl"
    out.write_text("old")
    rows = write_rows(folder, *goods(ROWS_AT_ONCE + 1))
    result = run("score", rows, "-o", str(out), "--overwrite")
    assert result.exit_code == 130
    assert result.stderr == (
        f"kept: 64 finished pieces of work in {out}.unfinished: the same command goes on from "
        "there\ninterrupted: no output file was written\n"
    )
    assert out.read_text() == "old"
    assert len(list(folder.iterdir())) == 5


def test_a_job_that_was_interrupted_goes_on_where_it_was(folder: Path, loader: Loader) -> None:
    rows, out = write_rows(folder, *goods(ROWS_AT_ONCE + 5)), folder / "out.jsonl"
    loader.reward = Interrupted(StepSettings())
    assert run("score", rows, "-o", str(out)).exit_code == 130
    loader.reward = WordReward(StepSettings())
    result = run("score", rows, "-o", str(out))
    assert result.exit_code == 0
    assert result.stderr == "Going on from 64 finished pieces of work.\n"
    assert loader.reward.calls == [5]
    assert len(records(out)) == ROWS_AT_ONCE + 5
    assert not (folder / "out.jsonl.unfinished").exists()
