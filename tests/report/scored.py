"""Output files of the offline jobs, made for tests of the report."""

import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def save_picture(path: Path, size: tuple[int, int] = (96, 96), colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    path.write_bytes(file.getvalue())


def record(name: str, p: list[float] | None, **more: Any) -> dict[str, Any]:
    texts = more.pop("texts", None) or [f"Step {k} of {name}." for k in range(len(p or [0]))]
    steps = [
        {"text": text, "start": 0, "end": len(text), "p_correct": p[k] if p else None}
        for k, text in enumerate(texts)
    ]
    return {
        "id": name,
        "line": 1,
        "question": "How many?",
        "images": ["images/a.png"],
        "status": "scored" if p else "unscored_ours",
        "reason": None if p else "engine",
        "detail": None if p else "It is down.",
        "p_correct": p,
        "mean": sum(p) / len(p) if p else None,
        "steps": steps,
        "thinking": "I looked.",
        "flags": [],
        "usage": {},
        "model": "m",
        "profile": "two_stage",
        **more,
    }


def write(folder: Path, *records: dict[str, Any]) -> Path:
    save_picture(folder / "images" / "a.png")
    path = folder / "scores.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def few(folder: Path) -> Path:
    """Six rollouts of two problems, one unscored, one with labels, one hostile."""
    return write(
        folder,
        record("good", [0.9, 0.95, 0.8]),
        record("falls", [0.9, 0.1]),
        record("low", [0.3, 0.2, 0.4], flags=["thinking_truncated"]),
        record("down", None),
        record("labelled", [0.9, 0.7], step_labels=[1, -1], labels=[1, -1], source="MMMU"),
        record(
            f"evil {HOSTILE}", [0.6], texts=[HOSTILE], question=f"Q {HOSTILE}", thinking=HOSTILE
        ),
    )


def many(folder: Path, count: int) -> Path:
    """Rollouts with random probabilities; `needle` stands in one of them."""
    rng = random.Random(0)
    records = []
    for k in range(count):
        steps = [f"Step {n}: " + "the number of red shapes is three. " * 3 for n in range(8)]
        if k == count // 2:
            steps[3] = "Here is the needle."
        p = [round(rng.random(), 3) for _ in steps]
        records.append(
            record(f"r{k}", p, texts=steps, question=f"Question {k // 8}?", thinking="Cell. " * 80)
        )
    return write(folder, *records)


def candidates(folder: Path) -> Path:
    """Two problems of best-of-n with two candidates."""

    def one(p: list[float], right: bool, vote: int) -> dict[str, Any]:
        return {
            **record("x", p),
            "response": "",
            "answer": str(vote),
            "vote": vote,
            "right": right,
            "scores": {},
        }

    rows = [
        {
            **record(name, [0.5]),
            "chosen": {"mean": best, "majority": 0},
            "candidates": [one([0.9, 0.8], best == 0, 0), one([0.2, 0.95], best == 1, 1)],
        }
        for name, best in (("p1", 0), ("p2", 1))
    ]
    return write(folder, *rows)
