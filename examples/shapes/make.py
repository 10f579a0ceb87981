"""Draw the pictures of this folder and write `rollouts.jsonl`: `python examples/shapes/make.py`."""

import json
import random
from pathlib import Path

from vrprm_reward.demo.scene import Scene, Thing, draw

FOLDER = Path(__file__).parent
SCENE = Scene(
    (
        Thing("red", "circle"),
        Thing("blue", "square"),
        Thing("red", "star"),
        None,
        Thing("green", "triangle"),
        Thing("yellow", "circle"),
        Thing("red", "square"),
        None,
        Thing("blue", "circle"),
    )
)
QUESTION = (
    "Start with the number of reds, then add the number of circles, then multiply by two. "
    "What is the result?"
)
CANDIDATES = {
    "misread": ["The number of reds is two.", "Counting the circles gives three.",
                "Then reds two plus circles three makes five.",
                "Then that five times two makes ten.", "The answer is ten."],
    "slip": ["The number of reds is three.", "Counting the circles gives three.",
             "Then reds three plus circles three makes seven.",
             "Then that seven times two makes fourteen.", "The answer is fourteen."],
    "right": ["The number of reds is three.", "Counting the circles gives three.",
              "Then reds three plus circles three makes six.",
              "Then that six times two makes twelve.", "The answer is twelve."],
    "recovered": ["The number of reds is three.", "Counting the circles gives four.",
                  "Wait, looking again: counting the circles gives three.",
                  "Then reds three plus circles three makes six.",
                  "Then that six times two makes twelve.", "The answer is twelve."],
}  # fmt: skip


def main() -> None:
    """Write the picture and the rollouts."""
    draw(SCENE, random.Random(7)).save(FOLDER / "shapes.png")
    with (FOLDER / "rollouts.jsonl").open("w", encoding="utf-8") as file:
        for name, steps in CANDIDATES.items():
            row = {"id": name, "question": QUESTION, "images": ["shapes.png"]}
            file.write(json.dumps(row | {"response": "\n\n".join(steps)}) + "\n")


if __name__ == "__main__":
    main()
