import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.commands.processes import finished, start
from tests.commands.scoring import good, goods, records, write_rows
from vrprm_reward.jobs.job import ROWS_AT_ONCE

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


class TestAsAProcess:
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
