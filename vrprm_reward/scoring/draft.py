"""Guess a rollout's verdicts from the thinking, so that judging at a fixed point ends sooner.

A guess costs nothing when it is wrong but the judgements that are asked for again.
"""

import re

_ANCHOR = re.compile(r"(?:^[^\w\n]*|\bsteps?\s+)(\d{1,6})\b", re.IGNORECASE | re.MULTILINE)
"""Where a text begins to speak of a step: its number at the start of a line, or behind "step"."""

_OPINION = re.compile(
    r"\b(?P<not>no|not|without|isn't|never)?\s*\b(?:"
    r"(?P<good>correct|right|valid|accurate|true|sound|holds)"
    r"|(?P<bad>incorrect|wrong|invalid|inaccurate|false|unsound|mistaken|flawed|error|mistake)"
    r")\b",
    re.IGNORECASE,
)


def drafted_verdicts(thinking: str, steps: int, first_number: int) -> list[int]:
    """What the thinking seems to say of each step; 1 where it says nothing.

    The last opinion between a step's number and the next one counts.

    Args:
        thinking: the model's text.
        steps: how many there are.
        first_number: the number under which the first step was shown.
    """
    found = [1] * steps
    anchors = list(_ANCHOR.finditer(thinking))
    for place, anchor in enumerate(anchors):
        end = anchors[place + 1].start() if place + 1 < len(anchors) else len(thinking)
        index = int(anchor[1]) - first_number
        if not 0 <= index < steps:
            continue
        for opinion in _OPINION.finditer(thinking, anchor.end(), end):
            found[index] = int((opinion["good"] is None) == (opinion["not"] is not None))
    return found
