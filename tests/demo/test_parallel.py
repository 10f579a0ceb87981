"""Training in several processes."""

import json
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
