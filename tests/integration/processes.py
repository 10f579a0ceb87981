"""Real servers in processes of their own: vLLM with the demo checkpoint, and `vrprm-reward serve`.

Every one starts on a free port, is waited for with a limit, and ends with its block, its children
included.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2

from vrprm_reward import load_profile
from vrprm_reward.process_reward import DEMO_FOLDER

ROOT = Path(__file__).parents[2]
START_SECONDS = 300.0
MODEL = "vrprm-demo"
VLLM_ON_A_CPU = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Bound threads would put two servers, and this process, on the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    # The model in the process that schedules, not in one beside it: a third less to start.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
"""Environment of a small vLLM that shares a machine with other servers."""


class ServerProcess:
    """A running server.

    Args:
        command: starts it.
        log: file for what it writes.
        environment: additions to this process's environment.
    """

    def __init__(self, command: Sequence[str], log: Path, **environment: str) -> None:
        self.log = log
        self.url = ""
        path = os.pathsep.join(
            [str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")]
        )
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, **environment},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, there: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Raise `AssertionError` with the end of the log when it ends, or `seconds` pass."""
        end = time.monotonic() + seconds
        while not there():
            state = self.process.poll()
            if state is not None or time.monotonic() > end:
                what = f"ended with {state}" if state is not None else f"not there in {seconds:g} s"
                raise AssertionError(f"{self.process.args}: {what}\n{self.text[-4000:]}")
            time.sleep(0.2)

    def answers(self, path: str, token: str | None = None) -> bool:
        """Whether `GET path` is answered with 200."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            return httpx2.get(self.url + path, headers=headers, timeout=10).status_code == 200
        except httpx2.HTTPError:
            return False

    def terminate(self, seconds: float = 60.0) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it and all its children at once, as `kill -9` does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def exit_when_terminated() -> None:
    """Let SIGTERM leave `with` blocks as Ctrl-C does, so that their servers end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def vllm(
    folder: Path, *options: str, checkpoint: Path = DEMO_FOLDER, port: int | None = None
) -> Iterator[ServerProcess]:
    """The real vLLM server. Its base URL is `url + "/v1"`.

    Args:
        folder: where its log and its conversation template are written.
        options: more of its command line.
        checkpoint: what it serves, as `MODEL`.
        port: None: a free one.
    """
    template = folder / "chatml.jinja"
    template.write_text(load_profile("two_stage").conversation, encoding="utf-8")
    port = port or free_port()
    command = [
        *(sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(checkpoint), "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--chat-template", str(template), "--chat-template-content-format", "openai"),
        *("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "32"),
        *("--limit-mm-per-prompt", '{"image":2,"video":0}'),
        *options,
    ]
    server = ServerProcess(
        command,
        folder / f"vllm-{port}.log",
        **VLLM_ON_A_CPU,
    )
    server.url = f"http://127.0.0.1:{port}"
    try:
        server.wait_until(lambda: server.answers("/health"))
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def vrprm_serve(folder: Path, *options: str, token: str | None = None) -> Iterator[ServerProcess]:
    """`vrprm-reward serve` on a free port, with its model loaded.

    Args:
        folder: where its log is written.
        options: the rest of its command line.
        token: what opens it.
    """
    command = [sys.executable, "-m", "vrprm_reward.cli", "serve", "--port", "0", *options]
    secrets = {} if token is None else {"VRPRM_TOKEN": token}
    server = ServerProcess(command, folder / f"serve-{time.monotonic_ns()}.log", **secrets)

    def listening() -> bool:
        found = re.search(r"listening on (http://\S+)", server.text)
        server.url = found[1] if found else ""
        return found is not None

    try:
        server.wait_until(listening)
        server.wait_until(lambda: server.answers("/ready", token))
        yield server
    finally:
        server.kill()
