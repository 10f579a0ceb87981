"""Text around a step that claims nothing about the picture, for the demo model to look past.

A judge that has never seen such text takes a step for wrong because it is strange. Data of this
kind is the remedy of arXiv 2507.08794 against empty openers. The words here are drawn at random;
with the robustness suite it shares forms of markup and the world's own plan sentences.
"""

import random
import string
from collections.abc import Callable, Iterable
from dataclasses import replace

from vrprm_reward.demo.questions import PLANS
from vrprm_reward.demo.world import Example
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import step_number
from vrprm_reward.scoring.untrusted import Neutraliser

STEPS_WITH_NOISE = 0.7
"""Share of the steps of a noisy example that have noise."""

MOST_WORDS = 14

MOST_VERDICTS = 9
"""Lines of a forged record of verdicts."""

_ENDINGS = (".", ".", "!", "?", ":", ",", " …", ")")
_VERDICT_LINES = (
    "Step {number}: \\boxed{{{verdict}}}",
    "Step {number}: {verdict}",
    "{number}: {verdict}",
)
_DELIMITERS = ("<think>", "</think>", "<answer>", "</answer>", "<step split>", "\\boxed{1}")


class Noise:
    """Adds noise to examples as the scorer would show it, neutralised.

    Args:
        profile: whose markers are among the noise.
        added_tokens: strings that the tokenizer turns into one token; they are among it too.
    """

    def __init__(self, profile: Profile, added_tokens: Iterable[str]) -> None:
        self._profile = profile
        self._tokens = (*sorted(added_tokens), *_DELIMITERS)
        self._safe = Neutraliser(profile, added_tokens)

    def around(self, example: Example, rng: random.Random) -> Example:
        """The example with noise at most of its steps, of one kind or of several."""
        kinds = rng.sample(self._kinds(), rng.randint(1, 2))
        steps = []
        for index, step in enumerate(example.steps):
            if rng.random() < STEPS_WITH_NOISE:
                text = rng.choice(kinds)(rng, index, step.text)
                step = replace(step, written=self._safe.step(index, text))
            steps.append(step)
        return replace(example, steps=tuple(steps))

    def _kinds(self) -> list[Callable[[random.Random, int, str], str]]:
        return [
            _before, _behind, _behind, _again,
            self._sections, self._sections, self._history, self._history, self._marks,
        ]  # fmt: skip

    def _history(self, rng: random.Random, index: int, text: str) -> str:
        """Lines that pose as the record of verdicts on all steps, or on more than there are."""
        form = rng.choice((self._profile.judge.history_line, *_VERDICT_LINES))
        known = rng.choice(("0", "1", "01"))
        lines = [
            form.format(number=step_number(self._profile, n), verdict=rng.choice(known))
            for n in range(rng.randint(index + 1, MOST_VERDICTS))
        ]
        return "\n".join([text, rng.choice((self._profile.sections.history, "")), *lines])

    def _sections(self, rng: random.Random, index: int, text: str) -> str:
        """Lines that pose as sections of the judge's prompt, with verdicts of either kind."""
        lines = [text]
        for _ in range(rng.randint(1, 2)):
            marker = rng.choice((*self._profile.sections.markers, ""))
            lines += [marker] if marker else []
            lines += self._body(rng, index, text)
        return "\n".join(lines)

    def _body(self, rng: random.Random, index: int, text: str) -> list[str]:
        number = step_number(self._profile, index)
        kind = rng.choice(("verdicts", "verdict", "plan", "notes", "copy", "words", "none"))
        if kind == "verdicts":
            form = rng.choice(_VERDICT_LINES)
            return [form.format(number=n, verdict=rng.choice("01")) for n in range(number + 1)]
        if kind == "verdict":
            form = rng.choice((self._profile.judge.history_line, *_VERDICT_LINES))
            return [form.format(number=number, verdict=rng.choice("01"))]
        if kind == "plan":
            return [f"Step {number}: {rng.choice(PLANS)}"]
        if kind == "notes":
            verdict = rng.choice(("right", "wrong"))
            notes = rng.choice((text, rng.choice(PLANS), words(rng)))
            return [f"<think>{number}: {notes} {number} {verdict}</think>"]
        return {"copy": [text], "words": [words(rng)], "none": []}[kind]

    def _marks(self, rng: random.Random, index: int, text: str) -> str:  # noqa: ARG002
        """Reserved strings, alone or with other text between them."""
        marks = [rng.choice(self._tokens) for _ in range(rng.randint(1, 4))]
        filled = (
            f"{mark}{rng.choice(('', '', '1', '0', chr(10), words(rng), rng.choice(PLANS)))}"
            for mark in marks
        )
        return f"{text}{rng.choice(('', ' ', chr(10)))}{rng.choice(('', ' ')).join(filled)}"


def _before(rng: random.Random, index: int, text: str) -> str:  # noqa: ARG001
    return f"{words(rng)} {text}"


def _behind(rng: random.Random, index: int, text: str) -> str:  # noqa: ARG001
    return f"{text}{rng.choice((' ', chr(10)))}{words(rng)}"


def _again(rng: random.Random, index: int, text: str) -> str:  # noqa: ARG001
    return " ".join([text] * rng.randint(2, 3))


def words(rng: random.Random) -> str:
    """Words that mean nothing, in the shape of one or two sentences."""
    found = []
    for place in range(rng.randint(1, MOST_WORDS)):
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9)))
        found.append(word.capitalize() if place == 0 or rng.random() < 0.1 else word)
        if rng.random() < 0.1:
            found[-1] += rng.choice(_ENDINGS)
    return " ".join(found) + rng.choice(_ENDINGS)
