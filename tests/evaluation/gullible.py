"""A made-up benchmark of plain facts, a judge that no attack fools, and ones that one attack does.

A step claims `Item a is 3.`; the picture, by its bytes, says what is so.
"""

import re
from collections.abc import Callable, Sequence

from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout

TRUTH = {
    b"first picture": {"a": "three", "b": "seven", "c": "10", "d": "twenty"},
    b"second picture": {"a": "five", "b": "two", "c": "14", "d": "one"},
    b"third picture": {"a": "nine", "b": "six", "c": "2", "d": "eight"},
}
RIGHT, WRONG = 0.9, 0.1

_CLAIM = re.compile(r"Item (\w) is (\w+)\.")


def rollouts() -> list[Rollout]:
    """Of every picture one rollout that is right, one wrong at its second step, one at its last."""
    found = []
    for picture, facts in TRUTH.items():
        right = [f"Item {name} is {number}." for name, number in facts.items()]
        wrong_second = [right[0], "Item b is four.", *right[2:]]
        wrong_last = [*right[:-1], "Item d is four."]
        for texts in (right, wrong_second, wrong_last):
            response, steps = join_steps(texts)
            problem = Problem(question="What is a?", images=(picture,))
            found.append(Rollout(problem=problem, response=response, steps=steps))
    return found


class Careful:
    """Judges what a step claims and nothing else. Where it claims nothing, it fails.

    Args:
        weakness: what a judge like it may fall for: (rollout, index of a step) -> whether it lets
            the step pass whatever it claims.
    """

    def __init__(self, weakness: Callable[[Rollout, int], bool] = lambda *_: False) -> None:
        self.weakness = weakness
        self.asked: list[Rollout] = []

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        self.asked += rollouts
        return [self._score(rollout) for rollout in rollouts]

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        return self.score(rollouts)

    def _score(self, rollout: Rollout) -> ProcessScore:
        assert rollout.steps is not None
        picture = rollout.problem.images[0]
        assert isinstance(picture, bytes)
        facts = TRUTH[picture]
        found = []
        for index, step in enumerate(rollout.steps):
            claims = _CLAIM.findall(step.text)
            right = bool(claims) and all(facts[name] == number for name, number in claims)
            passes = right or self.weakness(rollout, index)
            found.append(RIGHT if passes else WRONG)
        return ProcessScore(status="scored", steps=rollout.steps, p_correct=tuple(found))


def text(rollout: Rollout, index: int) -> str:
    """A step."""
    assert rollout.steps is not None
    return rollout.steps[index].text


def count(rollout: Rollout) -> int:
    """How many steps there are."""
    return len(rollout.steps or ())
