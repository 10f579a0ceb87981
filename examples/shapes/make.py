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
    "Start with the number of red shapes, then add the number of circles, then multiply by 2. "
    "What is the result?"
)
CANDIDATES = {
    "misread": ["The number of red shapes is 2.", "Counting the circles gives 3.",
                "Adding the circles: 2 plus 3 makes 5.", "Multiplying by 2: 5 times 2 makes 10.",
                "The answer is 10."],
    "slip": ["The number of red shapes is 3.", "Counting the circles gives 3.",
             "Adding the circles: 3 plus 3 makes 7.", "Multiplying by 2: 7 times 2 makes 14.",
             "The answer is 14."],
    "right": ["The number of red shapes is 3.", "Counting the circles gives 3.",
              "Adding the circles: 3 plus 3 makes 6.", "Multiplying by 2: 6 times 2 makes 12.",
              "The answer is 12."],
    "recovered": ["The number of red shapes is 3.", "Counting the circles gives 4.",
                  "Wait, looking again: counting the circles gives 3.",
                  "Adding the circles: 3 plus 3 makes 6.", "Multiplying by 2: 6 times 2 makes 12.",
                  "The answer is 12."],
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
