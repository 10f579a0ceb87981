"""Many runs: which ones, in which folders, several at a time, and what is there of them already."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .logs import read_log
from .run import RunSettings, check_same, is_finished

SETTINGS = "settings.json"

POLL = 2.0
"""Seconds between two looks at what goes on."""


class RunFailedError(RuntimeError):
    """A run ended with an error; what it wrote is in its folder."""


def folder_of(root: Path, settings: RunSettings) -> Path:
    """Where a run is kept."""
    return root / "runs" / settings.name


def carry_out(
    root: Path,
    starts: Path,
    wanted: Sequence[RunSettings],
    jobs: int,
    console: Console,
    *,
    alone: bool = False,
) -> None:
    """Do those runs that are not finished, `jobs` processes at a time, with a progress bar.

    Each process has scores of its own, as only one can write a file of scores; what an earlier run
    of that process had judged costs nothing.

    Args:
        root: folder of the runs.
        starts: folder of the starts, which are there.
        wanted: the runs, in the order in which they are begun.
        jobs: most processes.
        console: where progress is shown.
        alone: whether every run has scores of its own, so that its seconds are those that it takes.

    Raises:
        RunFailedError: a run ended with an error; the others that were going on are ended.
        ValueError: a folder holds a run with other settings; nothing was begun.
    """
    waiting = [settings for settings in wanted if not _is_finished(root, settings)]
    going: dict[int, tuple[subprocess.Popen[bytes], RunSettings]] = {}
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("updates"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    total = sum(settings.updates for settings in wanted)
    before = signal.signal(signal.SIGTERM, _end)
    with bar:
        task = bar.add_task(f"{len(wanted)} runs", total=total)
        try:
            while waiting or going:
                for slot in range(jobs):
                    if slot not in going and waiting:
                        settings = waiting.pop(0)
                        scores = folder_of(root, settings) if alone else root
                        scores /= "scores" if alone else f"scores{slot}"
                        going[slot] = _started(root, starts, settings, scores), settings
                        if not console.is_terminal:
                            console.print(f"{settings.name}: {len(waiting)} runs wait behind it")
                for slot, (process, settings) in list(going.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del going[slot]
                    if code:
                        output = folder_of(root, settings) / "output.txt"
                        raise RunFailedError(
                            f"{settings.name} ended with {code}; its last words are in {output}"
                        )
                bar.update(task, completed=sum(_updates(root, s) for s in wanted))
                time.sleep(POLL)
        finally:
            for process, _ in going.values():
                process.terminate()
                process.wait()
            signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> NoReturn:
    """Ends as Ctrl-C does, so that the processes do not go on by themselves."""
    raise SystemExit(128 + number)


def _is_finished(root: Path, settings: RunSettings) -> bool:
    """Whether that very run is done. Raises `ValueError` for one of another kind in its place."""
    folder = folder_of(root, settings)
    path = folder / SETTINGS
    if path.exists():
        check_same(settings, json.loads(path.read_text()), folder)
    return is_finished(settings, folder)


def _started(
    root: Path, starts: Path, settings: RunSettings, scores: Path
) -> subprocess.Popen[bytes]:
    folder = folder_of(root, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(settings.model_dump_json(indent=2) + "\n")
    command = [sys.executable, "-m", "examples.tiny_rl", "run", str(folder / SETTINGS)]
    command += ["--starts", str(starts), "--scores", str(scores)]
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def _updates(root: Path, settings: RunSettings) -> int:
    rows = read_log(folder_of(root, settings))
    return max((int(row["update"]) for row in rows), default=0)


def grid(
    start: str,
    arms: Iterable[str],
    rates: dict[str, Sequence[float]],
    seeds: Iterable[int],
    **more: Any,
) -> list[RunSettings]:
    """Every arm at each of its rates with every seed; seeds outermost, so that an unfinished grid
    has all arms."""
    several = list(arms)
    return [
        RunSettings(start=start, arm=arm, rate=rate, seed=seed, **more)
        for seed in seeds
        for arm in several
        for rate in rates[arm]
    ]
