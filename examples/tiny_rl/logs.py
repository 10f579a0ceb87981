"""The log of a run: JSON lines, and TensorBoard's format where that package is installed."""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


class RunLog:
    """Writes rows of numbers, each with the update it belongs to.

    Going on after a kill drops the rows behind the last checkpoint, which are written again.

    Args:
        folder: where `log.jsonl` and TensorBoard's files are.
        update: the update whose checkpoint the run goes on from; 0 where it begins.
    """

    def __init__(self, folder: Path, update: int) -> None:
        self._path = folder / LOG
        rows = [row for row in read_log(folder) if update and row["update"] <= update]
        _write_whole(self._path, rows)
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder), purge_step=update + 1 if update else 0)

    def write(self, kind: str, update: int, numbers: Mapping[str, float]) -> None:
        """Append a row; `kind` is `train` or `held_out`."""
        row = {"kind": kind, "update": update, **numbers}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{kind}/{name}", value, update)

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, none where there is no log. A line that a kill cut short is left out."""
    path = folder / LOG
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _write_whole(path: Path, rows: list[dict[str, Any]]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(part, path)
