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
    "Take the number of red shapes, then multiply by 2, then add the number of circles. "
    "What is the result?"
)
CANDIDATES = {
    "misread": ["I count 2 red shapes.", "I count 3 circles.", "Multiplying by 2 gives 2 * 2 = 4.",
                "Adding the circles gives 4 + 3 = 7.", "The answer is 7."],
    "slip": ["I count 3 red shapes.", "I count 3 circles.", "Multiplying by 2 gives 3 * 2 = 6.",
             "Adding the circles gives 6 + 3 = 8.", "The answer is 8."],
    "right": ["I count 3 red shapes.", "I count 3 circles.", "Multiplying by 2 gives 3 * 2 = 6.",
              "Adding the circles gives 6 + 3 = 9.", "The answer is 9."],
    "recovered": ["I count 3 red shapes.", "I count 4 circles.",
                  "Wait, looking again: I count 3 circles.", "Multiplying by 2 gives 3 * 2 = 6.",
                  "Adding the circles gives 6 + 3 = 9.", "The answer is 9."],
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
