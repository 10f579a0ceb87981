"""Files of the demo world for every offline job, with true labels.

    python -m benchmarks.world_files --out runs/world [--problems 60] [--candidates 8]

writes `problems.jsonl` (for best-of-n), `tasks.jsonl` (for sample), `rollouts.jsonl` (for score)
and `visualprocessbench/` (test.jsonl and images, shaped like the benchmark, some neutral).
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from benchmarks.world_policy import SEPARATOR, NoisySolver, Task, tasks
from vrprm_reward.demo.evaluate import held_out

NEUTRAL_SHARE = 0.1


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def problem_rows(folder: Path, found: list[Task], candidates: int) -> list[dict[str, Any]]:
    """Problems with candidates, their images saved beside them."""
    solver, rng, rows = NoisySolver(tuple(found)), random.Random(1), []
    for number, task in enumerate(found):
        name = f"images/p{number}.png"
        task.example.image.save(folder / name)
        row = {
            "id": f"p{number}",
            "question": task.example.question,
            "images": [name],
            "reference_answer": task.example.answer,
        }
        solutions = [solver.solve(task, rng) for _ in range(candidates)]
        rows.append({**row, "candidates": [SEPARATOR.join(steps) for steps in solutions]})
    return rows


def benchmark_rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """Labelled rollouts of held-out problems: question types are the sources."""
    rng, rows = random.Random(2), []
    for number, example in enumerate(held_out(count)):
        name = f"images/{example.question_type}/{number}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        example.image.save(folder / name)
        labels = [
            0 if rng.random() < NEUTRAL_SHARE else 1 if label else -1 for label in example.labels
        ]
        rows.append(
            {
                "image": [name],
                "question": example.question,
                "answer": example.answer,
                "response": {
                    "steps": [step.text for step in example.steps],
                    "process_correctness": labels,
                },
                "policy_model": "world",
                "data_source": example.question_type,
            }
        )
    return rows


def write_world(folder: Path, *, problems: int = 60, candidates: int = 8) -> None:
    """Write everything into `folder`, which is made."""
    bench = folder / "visualprocessbench"
    for place in (folder / "images", bench):
        place.mkdir(parents=True, exist_ok=True)
    rows = problem_rows(folder, tasks(problems), candidates)
    write_lines(folder / "problems.jsonl", rows)
    bare = [{key: value for key, value in row.items() if key != "candidates"} for row in rows]
    write_lines(folder / "tasks.jsonl", bare)
    rollouts = [
        {
            "id": f"{row['id']}-{number}",
            "question": row["question"],
            "images": row["images"],
            "response": response,
        }
        for row in rows
        for number, response in enumerate(row["candidates"])
    ]
    write_lines(folder / "rollouts.jsonl", rollouts)
    write_lines(bench / "test.jsonl", benchmark_rows(bench, problems))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--candidates", type=int, default=8)
    options = parser.parse_args()
    write_world(options.out, problems=options.problems, candidates=options.candidates)
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
