"""Training in several processes."""

import fcntl
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from vrprm_reward.demo.parallel import average_gradients, in_processes


def _gradients_of_rank(out: Path, rank: int) -> None:
    both = torch.nn.Parameter(torch.zeros(2))
    first_only = torch.nn.Parameter(torch.zeros(1))
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    loss = (both * (rank + 1)).sum()
    if rank == 0:
        loss = loss + 4 * first_only.sum()
    loss.backward()
    average_gradients([both, first_only, frozen])
    assert frozen.grad is None
    found = [both.grad.tolist(), first_only.grad.tolist()]
    (out / f"{rank}.json").write_text(json.dumps(found))


def test_every_process_goes_on_with_the_mean_gradient(tmp_path):
    in_processes(2, partial(_gradients_of_rank, tmp_path))
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [[1.5, 1.5], [2.0]]


def test_one_process_keeps_its_gradients(tmp_path):
    in_processes(1, partial(_gradients_of_rank, tmp_path))
    assert json.loads((tmp_path / "0.json").read_text()) == [[1.0, 1.0], [4.0]]


def _fails_in_the_second(rank: int) -> None:
    if rank == 1:
        raise ValueError("no batch is left")


def test_the_failure_of_one_process_ends_all_and_is_told():
    with pytest.raises(Exception, match="no batch is left"):
        in_processes(2, _fails_in_the_second)


def _holds_a_lock(out: Path, rank: int) -> None:
    with (out / f"lock{rank}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (out / f"holds{rank}").touch()
        time.sleep(600)


def test_a_killed_run_leaves_no_process_behind(tmp_path):
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from tests.demo.test_parallel import _holds_a_lock, in_processes\n"
        "in_processes(2, partial(_holds_a_lock, Path(sys.argv[1])))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        while not all((tmp_path / f"holds{rank}").exists() for rank in range(2)):
            assert run.poll() is None
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    deadline = time.monotonic() + 60
    while any(_is_locked(tmp_path / f"lock{rank}") for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
