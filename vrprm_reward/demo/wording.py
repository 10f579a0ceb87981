"""How a policy words a move, and what a careful reader holds against each word of it."""

import random
from dataclasses import dataclass

from vrprm_reward.demo.moves import NOTHING, Move, spelt
from vrprm_reward.demo.scene import Kind, Scene


@dataclass(frozen=True)
class Claim:
    """A word of a step that may be wrong."""

    word: str
    true: str
    """What would be right in its place."""


@dataclass(frozen=True)
class Truth:
    """What is known at this point of a step; its author does not write it."""

    words: str


@dataclass(frozen=True)
class Basis:
    """A word that stands for what the step before it found."""

    word: str
    sound: bool
    """Whether that was right."""


Sentence = tuple[str | Claim | Truth | Basis, ...]
"""A step in pieces. Text begins with its own space; the other pieces are words after a space.

No word that something is told by stands twice in a sentence: what follows it is then easy to copy.
"""


def plain(sentence: Sentence) -> str:
    """A step as its author writes it."""
    return "".join(
        part if isinstance(part, str) else f" {part.word}"
        for part in sentence
        if not isinstance(part, Truth)
    )


def holds(part: Claim | Basis) -> bool:
    """Whether a word is right."""
    return part.word == part.true if isinstance(part, Claim) else part.sound


def is_true(sentence: Sentence) -> bool:
    """Whether every word that may be wrong is right."""
    return all(holds(part) for part in sentence if isinstance(part, Claim | Basis))


@dataclass(frozen=True)
class Version:
    """A move with values: what it builds on, by name, and what comes of it."""

    told: dict[str, str]
    value: str


@dataclass(frozen=True)
class _Telling:
    """A move as its author believes it beside how it is."""

    move: Move
    claimed: Version
    true: Version
    scene: Scene

    def seen(self, place: str) -> str:
        return str(self.scene.at(place) or NOTHING)


OPENINGS = ("Wait, looking again:", "Let me correct this:", "No, I was mistaken:")

UNSEEN = "unseen"
"""What a careful reader notes at a claim that no picture can show."""

_UNSUPPORTED = (
    ("All of them are made of", "glass", "."),
    ("The largest one is", "heavier", " than the others."),
    ("The smallest one was", "drawn", " before the others."),
    ("The picture was painted at", "night", "."),
    ("Behind them stands a", "dog", "."),
)


def unsupported_sentence(rng: random.Random) -> Sentence:
    """A claim about what no picture of this world can show."""
    before, word, after = rng.choice(_UNSUPPORTED)
    return (before, Truth(UNSEEN), Claim(word, UNSEEN), after)


def sentence_of(
    move: Move,
    claimed: Version,
    true: Version,
    scene: Scene,
    rng: random.Random,
    redo: bool = False,
) -> Sentence:
    """What a policy writes for a move; `redo` opens it as a correction of an earlier mistake.

    Raises `OutsideError`.
    """
    wordings = _WORDINGS[move.kind](_Telling(move, claimed, true, scene))
    first, *rest = rng.choice(wordings)
    if redo:
        first = f"{rng.choice(OPENINGS)} {str(first)[0].lower()}{str(first)[1:]}"
    return (first, *rest)


def _plan(telling: _Telling) -> list[Sentence]:
    return [(text,) for text in telling.move.words]


def _count(telling: _Telling) -> list[Sentence]:
    noun = _noun(telling.move.of[0], telling.true.value)
    number = _number(telling.claimed.value, telling.true.value)
    return [
        ("The number of", *noun, " is", number, "."),
        ("Counting the", *noun, " gives", number, "."),
    ]


def _find(telling: _Telling) -> list[Sentence]:
    place = telling.move.place
    if place is None:
        there, thing = _located(telling)
        return [("In the", *there, " is a", *thing, ".")]
    seen = telling.seen(place)
    thing = _thing(telling.claimed.value, seen)
    place_and_truth = (f" {place}", Truth(seen))
    return [("In the", *place_and_truth, " is", *thing, "."),
            ("The", *place_and_truth, " shows", *thing, ".")]  # fmt: skip


def _located(telling: _Telling) -> tuple[Sentence, Sentence]:
    """A place and a thing: whether the thing is there shows in what is there."""
    place, noun = telling.claimed.value, telling.move.of[0].noun(1)
    seen = telling.seen(place)
    return (f" {place}", Truth(seen)), _claims(noun, seen)


def _beside(telling: _Telling) -> list[Sentence]:
    """Held against the place that the step looks at, which may be a wrong one."""
    place, thing = telling.claimed.value.split(" ", 1)
    seen = telling.seen(place)
    start = f"Directly {telling.move.side} of"
    found = (f" in the {place}", Truth(seen), " is", *_thing(thing, seen), ".")
    return [(start, _basis(telling), *found)]


def _sum(telling: _Telling) -> list[Sentence]:
    """Every number stands behind the name of what was counted, or behind "that" for a result."""
    move, kinds = telling.move, list[Kind | None](telling.move.of)
    if len(kinds) < len(move.uses):
        kinds.insert(0, None)
    first, *rest = (_term(telling, *term) for term in zip(kinds, move.uses, strict=True))
    second = rest[0] if rest else (f" {spelt(str(move.constant))}",)
    result = (Truth(spelt(telling.true.value)), _number(telling.claimed.value, telling.true.value))
    return [("Then", *first, f" {move.operator}", *second, " makes", *result, ".")]


def _compare(telling: _Telling) -> list[Sentence]:
    (these, those), (one, other) = telling.move.of, telling.move.uses
    against = _term(telling, those, other)
    relation = (Truth(telling.true.value), Claim(telling.claimed.value, telling.true.value))
    return [("Against", *against, *_term(telling, these, one), " are", *relation, ".")]


def _final(telling: _Telling) -> list[Sentence]:
    move, claimed, true = telling.move, telling.claimed, telling.true
    if move.of:
        there, thing = _located(telling)
        return [("So the answer is", *there, ", with a", *thing, ".")]
    if move.words == ("thing",):
        # What the step before looked at is all that this one can be held against.
        place = next(iter(claimed.told.values())).split(" ")[0]
        seen = telling.seen(place) if move.side else true.value
        answer = (Truth(seen), *_claims(claimed.value, seen), ".")
        return [("Going by", _basis(telling), " the answer is", *answer)]
    answer = (Truth(spelt(true.value)), _number(claimed.value, true.value), ".")
    return [("The answer is", *answer), ("So the answer is", *answer)]


_WORDINGS = {
    "plan": _plan,
    "count": _count,
    "find": _find,
    "beside": _beside,
    "sum": _sum,
    "compare": _compare,
    "final": _final,
}


def _basis(telling: _Telling) -> Basis:
    return Basis("it", telling.claimed.told == telling.true.told)


def _number(claimed: str, true: str) -> Claim:
    return Claim(spelt(claimed), spelt(true))


def _noun(kind: Kind, number: str) -> Sentence:
    """What is counted, with its number right behind the word it is looked up by."""
    return (f" {kind.noun()}", Truth(spelt(number)))


def _term(telling: _Telling, kind: Kind | None, name: str) -> Sentence:
    claimed, true = telling.claimed.told[name], telling.true.told[name]
    named = _noun(kind, true) if kind else (" that", Truth(spelt(true)))
    return (*named, _number(claimed, true))


def _thing(claimed: str, true: str) -> Sentence:
    return (*(() if claimed == NOTHING else (" a",)), *_claims(claimed, true))


def _claims(claimed: str, true: str) -> Sentence:
    words, trues = claimed.split(), true.split()
    return tuple(Claim(word, trues[min(i, len(trues) - 1)]) for i, word in enumerate(words))
