"""Two problems about one picture, and what the scripted policy answers."""

RED = "How many red shapes are there?"
CIRCLES = "How many circles are there?"
QUESTIONS = {"problem0": RED, "problem1": CIRCLES}
"""By the uid that `harness.prompts_of` gives."""

RESPONSES = {
    RED: [
        "The number of red shapes is three.\n\nThe answer is three.",
        "The number of red shapes is two.\n\nTwo it is.\n\nThe answer is two.",
    ],
    CIRCLES: [
        "Counting the circles gives three.\n\nThe answer is three.",
        "The answer is one.",
    ],
}
