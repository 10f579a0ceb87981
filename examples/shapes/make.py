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
    "Start with the number of red shapes, then add the number of circles, then multiply by two. "
    "What is the result?"
)
CANDIDATES = {
    "misread": ["The number of red shapes is two.", "Counting the circles gives three.",
                "Adding the circles: two plus three makes five.",
                "Multiplying by two: five times two makes ten.", "The answer is ten."],
    "slip": ["The number of red shapes is three.", "Counting the circles gives three.",
             "Adding the circles: three plus three makes seven.",
             "Multiplying by two: seven times two makes fourteen.", "The answer is fourteen."],
    "right": ["The number of red shapes is three.", "Counting the circles gives three.",
              "Adding the circles: three plus three makes six.",
              "Multiplying by two: six times two makes twelve.", "The answer is twelve."],
    "recovered": ["The number of red shapes is three.", "Counting the circles gives four.",
                  "Wait, looking again: counting the circles gives three.",
                  "Adding the circles: three plus three makes six.",
                  "Multiplying by two: six times two makes twelve.", "The answer is twelve."],
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
