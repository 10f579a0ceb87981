"""Several runs at a time are ended with the command that started them."""

import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from examples.tiny_rl import grid


def test_a_command_that_is_told_to_end_ends_its_runs(tmp_path, monkeypatch):
    started = []

    def start(*_):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    monkeypatch.setattr(grid, "_started", start)
    monkeypatch.setattr(grid.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    wanted = grid.grid("hard", ["outcome"], {"outcome": (0.1,)}, range(3))
    with pytest.raises(SystemExit) as ended:
        grid.carry_out(tmp_path, tmp_path, wanted, 2, Console(quiet=True))
    assert ended.value.code == 128 + signal.SIGTERM
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == before
