"""Offline jobs at length: 100,000 short rollouts, memory, overhead, and 20 times kill -9.

    python -m benchmarks.soak_jobs [--rollouts 100000] [--kills 20]

The job is `vrprm-reward score` in a process of its own, with a process reward that takes no time,
so that what is measured is the job. Prints its findings and writes them to
`benchmarks/results/soak_jobs.json`. Run by hand, on a machine that does nothing else.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

RESULTS = Path(__file__).parent / "results" / "soak_jobs.json"
CHILD = """
import vrprm_reward.commands.score as score
from vrprm_reward import ProcessScore, split_steps
from vrprm_reward.cli import app

class Trivial:
    def score(self, rollouts):
        steps = [split_steps(rollout.response) for rollout in rollouts]
        return [ProcessScore(status="scored", steps=s, p_correct=[0.75] * len(s)) for s in steps]

score.load_process_reward = lambda name, **settings: Trivial()
app()
"""


def write_rows(folder: Path, count: int) -> Path:
    """Short rollouts, eight for each problem, on 16 images."""
    for number in range(16):
        Image.new("RGB", (32, 32), (number * 15, 60, 120)).save(folder / f"{number}.png")
    path = folder / f"rows-{count}.jsonl"
    with path.open("w") as file:
        for number in range(count):
            problem = number // 8
            row = {
                "id": f"r{number}",
                "question": f"How many shapes are there in picture {problem}?",
                "images": [f"{problem % 16}.png"],
                "response": f"There are {number % 9} red shapes.\n\nThere are {number % 7} blue "
                f"shapes.\n\nThe answer is {number}.",
            }
            file.write(json.dumps(row) + "\n")
    return path


def start(rows: Path, out: Path) -> subprocess.Popen[bytes]:
    """The job, which writes nothing but its output."""
    command = [sys.executable, "-c", CHILD, "score", str(rows), "-q", "-o", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet)  # type: ignore[call-overload,no-any-return]


def resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run_long(folder: Path, count: int) -> dict[str, Any]:
    """One undisturbed run, its memory looked at ten times a second."""
    rows, out = write_rows(folder, count), folder / "long.jsonl"
    began = time.monotonic()
    job = start(rows, out)
    seen: list[float] = []
    while job.poll() is None:
        seen.append(resident(job.pid))
        time.sleep(0.1)
    seconds = time.monotonic() - began
    assert job.returncode == 0, job.returncode
    seen = [mib for mib in seen if mib]
    fifth = max(1, len(seen) // 5)
    return {
        "rollouts": count,
        "seconds": round(seconds, 1),
        "overhead_ms_per_rollout": round(seconds / count * 1000, 3),
        "processor_seconds": round(sum(os.times()[2:4]), 1),
        "memory_mib_most": round(max(seen), 1),
        "memory_mib_most_in_the_second_fifth": round(max(seen[fifth : 2 * fifth]), 1),
        "memory_mib_most_in_the_last_fifth": round(max(seen[-fifth:]), 1),
    }


def digest(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_killed(folder: Path, count: int, kills: int) -> dict[str, Any]:
    """A run that is killed at random moments and started again, held against an undisturbed one."""
    rows, whole, out = write_rows(folder, count), folder / "whole.jsonl", folder / "killed.jsonl"
    began = time.monotonic()
    assert start(rows, whole).wait() == 0
    lasts = time.monotonic() - began
    rng, done, finished = random.Random(4), 0, 0
    while done < kills:
        job = start(rows, out)
        time.sleep(rng.uniform(0.0, lasts))
        if job.poll() is None:
            job.send_signal(signal.SIGKILL)
            done += 1
        job.wait()
        if out.exists():
            finished += 1
            assert digest(out) == digest(whole)
            out.unlink()
    if not out.exists():
        assert start(rows, out).wait() == 0
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    left = sorted(p.name for p in folder.iterdir() if "unfinished" in p.name or ".part" in p.name)
    return {
        "rollouts": count,
        "seconds_undisturbed": round(lasts, 1),
        "kills": done,
        "times_it_was_finished_in_between": finished,
        "output_equal_to_undisturbed": digest(out) == digest(whole),
        "duplicates": len(ids) - len(set(ids)),
        "files_left_behind": left,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        findings = {
            "long": run_long(folder, options.rollouts),
            "killed": run_killed(folder, max(64, options.rollouts // 10), options.kills),
        }
    text = json.dumps(findings, indent=2)
    print(text)
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
