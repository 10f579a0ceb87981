"""The command line as a process of its own."""

import os
import signal
import subprocess
import sys
from typing import Any


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
        # A job in the background of a script is deaf to interrupts, and so its children would be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **more,
    )


def finished(*command: str, **more: Any) -> tuple[int, str, str]:
    process = start(*command, **more)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
