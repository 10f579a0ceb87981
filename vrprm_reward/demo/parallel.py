"""Training in several processes, each with batches of its own and the same weights."""

import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run `work(rank)` in so many processes; `work` pickles. One runs here.

    They end with this process, however it ends.

    Raises:
        torch.multiprocessing.ProcessRaisedException: one of them failed; the others are ended.
    """
    if count == 1:
        work(0)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        spawn(_joined, (count, meeting, work), nprocs=count)  # type: ignore[no-untyped-call]


def _joined(rank: int, count: int, meeting: str, work: Callable[[int], None]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    try:
        work(rank)
    finally:
        distributed.destroy_process_group()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Every gradient becomes its mean over the processes; where there is none it counts as zero."""
    if not distributed.is_initialized():
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.nn.utils.parameters_to_vector([p.grad for p in trained if p.grad is not None])
    distributed.all_reduce(flat)
    mean = flat / distributed.get_world_size()
    parts = torch.split(mean, [parameter.numel() for parameter in trained])
    for parameter, part in zip(trained, parts, strict=True):
        parameter.grad = part.view_as(parameter)
