import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from vrprm_reward.cli import app
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import CheckpointError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.job import PIECES_AT_ONCE, ROWS_AT_ONCE
from vrprm_reward.process_reward import load_process_reward
from vrprm_reward.scoring.profile import load_profile
from vrprm_reward.steps import StepSettings, split_steps
from vrprm_reward.types import ProcessScore, Rollout, Usage

QUESTION = "How many circles?"


class WordReward:
    """A step is wrong where it says so; a response without steps is unscored."""

    def __init__(self, steps: StepSettings) -> None:
        self.profile = load_profile("two_stage")
        self.calls: list[int] = []
        self.closed = False
        self._steps = steps

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        self.calls.append(len(rollouts))
        return [self._score(rollout) for rollout in rollouts]

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        return self.score(rollouts)

    def close(self) -> None:
        self.closed = True

    def _score(self, rollout: Rollout) -> ProcessScore:
        steps = rollout.steps
        if steps is None:
            steps = split_steps(rollout.response, self._steps)
        if not steps:
            return ProcessScore(
                status="unscored_response", reason="response_empty", detail="There are no steps."
            )
        return ProcessScore(
            status="scored",
            steps=steps,
            p_correct=tuple(0.125 if "wrong" in step.text else 0.875 for step in steps),
            thinking="Three circles are seen.",
            usage=Usage(prompt_tokens=100, generated_tokens=5, requests=1 + len(steps)),
        )


class Interrupted(WordReward):
    """Scores the first piece and is interrupted in the next one."""

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        if "It is 0." not in rollouts[0].response:
            raise KeyboardInterrupt
        return super().score(rollouts)


class Loader:
    """Stands in for `load_process_reward` and remembers what it was asked for."""

    reward: Any = None

    def __call__(self, name: str, **settings: Any) -> Any:
        self.name, self.settings = name, settings
        if self.reward is None:
            self.reward = WordReward(settings["steps"])
        return self.reward


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    loader = Loader()
    monkeypatch.setattr("vrprm_reward.commands.score.load_process_reward", loader)
    return loader


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path


def good(response: str = "Three.\nIt is 3.", **more: object) -> dict[str, object]:
    return {"question": QUESTION, "images": "a.png", "response": response, **more}


def goods(count: int) -> list[dict[str, object]]:
    return [good(f"Three.\nIt is {number}.") for number in range(count)]


def write_rows(folder: Path, *rows: object, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def run(*arguments: str, stdin: str | None = None, columns: int = 100) -> Result:
    return CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1"}).invoke(
        app, list(arguments), input=stdin
    )


def records(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def plain(text: str) -> str:
    """Without colours, boxes and line breaks, which CI systems turn on and terminals move."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


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
            "local": LocalOptions(device="cuda:1", dtype="bfloat16", pass_tokens=99),
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


class TestHelp:
    def test_help_names_the_commands(self) -> None:
        result = run("--help")
        assert result.exit_code == 0
        assert "Score the steps of rollouts" in plain(result.stdout)

    @pytest.mark.parametrize("columns", [60, 80, 120])
    def test_the_help_of_score_has_examples_and_exit_statuses(self, columns: int) -> None:
        text = plain(run("score", "-h", columns=columns).stdout)
        assert "vrprm-reward score rollouts.jsonl -o scores.jsonl --model ./vrprm-4b" in text
        assert r"--separator '\n'" in text
        assert "1 some rows are bad or unscored" in text
        assert "[cyan]" not in text

    def test_no_arguments_show_the_help(self) -> None:
        assert "Usage" in run().stdout


SCRIPT = textwrap.dedent(
    """
    import time
    import vrprm_reward.cli as cli
    import vrprm_reward.commands.score as score
    from vrprm_reward import ProcessScore, split_steps

    class Slow:
        def score(self, rollouts):
            print("scoring", flush=True)
            time.sleep({seconds})
            steps = [split_steps(rollout.response) for rollout in rollouts]
            return [
                ProcessScore(status="scored", steps=s, p_correct=[0.875] * len(s)) for s in steps
            ]

    score.load_process_reward = lambda name, **settings: Slow()
    cli.app()
    """
)


def silent_script(*, seconds: float) -> str:
    return SCRIPT.format(seconds=seconds).replace('print("scoring", flush=True)', "pass")


def start(*command: str, **more: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "_TYPER_FORCE_DISABLE_TERMINAL": "1", "PYTHONWARNINGS": "error"}
    environment.update(more.pop("env", {}))
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **more,
    )


def finished(*command: str, **more: Any) -> tuple[int, str, str]:
    process = start(*command, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


class TestAsAProcess:
    def test_the_version_is_that_of_the_package(self) -> None:
        status, out, err = finished("-m", "vrprm_reward.cli", "--version")
        assert (status, err) == (0, "")
        assert re.fullmatch(r"vrprm-reward \d+\.\d+\.\d+\S*\n", out)

    def test_the_installed_script_shows_the_help(self) -> None:
        script = Path(sys.executable).with_name("vrprm-reward")
        status, out, _ = finished(str(script), "--help")
        assert status == 0
        assert "score" in out

    def test_help_needs_neither_torch_nor_transformers(self) -> None:
        code = (
            "import sys, vrprm_reward.cli; "
            "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
        )
        assert finished("-c", code)[1] == "[]\n"

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("vrprm-reward sc", ["score"]),
            ("vrprm-reward score --pro", ["--profile"]),
            ("vrprm-reward score --split ", ["vrprm", "numbered", "protected", "separator"]),
            ("vrprm-reward score --profile two", ["two_stage"]),
        ],
    )
    def test_the_shell_completes_commands_options_and_values(
        self, words: str, expected: list[str]
    ) -> None:
        code = "import sys; sys.argv[0] = 'vrprm-reward'; from vrprm_reward.cli import app; app()"
        _, out, _ = finished(
            "-c",
            code,
            env={
                "_VRPRM_REWARD_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
            },
        )
        assert out.split() == expected

    def test_a_missing_file_is_status_2_without_a_traceback(self, tmp_path: Path) -> None:
        status, out, err = finished("-m", "vrprm_reward.cli", "score", "no.jsonl", cwd=tmp_path)
        assert (status, out) == (2, "")
        assert err.startswith("error: 'no.jsonl' cannot be read")
        assert err.count("\n") == 1

    def test_an_encoding_without_the_characters_does_not_stop_it(self, folder: Path) -> None:
        rows = write_rows(folder, good("圆 is wrong", id="r1"))
        status, out, err = finished(
            "-c", SCRIPT.format(seconds=0), "score", rows, env={"PYTHONIOENCODING": "ascii"}
        )
        assert (status, err) == (0, "")
        assert "? is wrong" in out

    def test_an_interrupt_ends_it_with_130_and_nothing_half_written(self, folder: Path) -> None:
        rows, out = write_rows(folder, good()), folder / "out.jsonl"
        process = start("-c", SCRIPT.format(seconds=30), "score", rows, "-o", str(out))
        assert process.stdout is not None
        assert process.stdout.readline() == "scoring\n"
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - before < 15
        assert process.returncode == 130
        assert err == "interrupted: no output file was written\n"
        assert sorted(p.name for p in folder.iterdir()) == ["a.png", "elsewhere", "rows.jsonl"]

    @pytest.mark.parametrize(("with_output", "status"), [(True, 0), (False, 1)])
    def test_a_reader_that_leaves_ends_it_unless_there_is_a_file_to_write(
        self, folder: Path, with_output: bool, status: int
    ) -> None:
        rows, out = write_rows(folder, *goods(3 * ROWS_AT_ONCE)), folder / "out.jsonl"
        options = ["-o", str(out)] if with_output else []
        process = start("-c", silent_script(seconds=0.2), "score", rows, *options)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(timeout=60) == status
        assert err == ""
        assert out.exists() == with_output
        if with_output:
            assert len(records(out)) == 3 * ROWS_AT_ONCE

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
    def test_a_terminal_gets_colours_and_a_progress_bar_unless_no_color_is_set(
        self, folder: Path
    ) -> None:
        rows = write_rows(folder, good(), good("wrong"))
        coloured = on_a_terminal("score", rows, env={"TERM": "xterm-256color", "COLUMNS": "80"})
        assert "\x1b[32m0.875" in coloured
        assert "scoring" in coloured
        bare = on_a_terminal(
            "score", rows, env={"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"}
        )
        assert "0.875" in bare
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]", bare)


def on_a_terminal(*arguments: str, env: dict[str, str]) -> str:
    """What it prints when all its streams are one pseudo-terminal."""
    import pty

    leader, follower = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", silent_script(seconds=0.3), *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**clean, **env},
    )
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 65536):
            seen += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 0
    return seen.decode()
