"""Training samples without thinking: the model reads steps beside the picture and judges at once.

A verdict alone teaches nothing: it is a conjunction of what several words claim. So more is asked
than the verdicts, at the steps as they stand in the prompt: behind the word that something is
looked up by, what is true of it; at a claim, whether it holds; at the end of a step, whether it is
right. A careful reader notes the same at these places (see `world.checks`). In one forward pass
each of these needs the one before it, so they are asked of one layer after the other.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from vrprm_reward.demo import drills, world
from vrprm_reward.demo.samples import Sample, Target, case_of, maybe_partial
from vrprm_reward.demo.scene import PLACES
from vrprm_reward.demo.wording import Truth, holds, plain
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import step_number

NUMBER_LAYER, TRUTH_LAYER, TICK_LAYER = 2, 3, 4
"""Layers of five after which the number of the step, what is true, and whether a claim holds can be
read. The last layer finds the ticks of a step by its number."""

MOST_TURNS = 5
"""Steps of an exercise, at most, where each is shown again with the whole of it."""

IN_FRAME = "framed "
"""Beginning of the names of samples that stand in a frame and ask for judgements."""

_EXAMPLES: Mapping[str, Callable[[random.Random], world.Example]] = MappingProxyType(
    {
        "counts": drills.count_example,
        "sums": drills.sums_example,
        "quiz": drills.quiz_example,
        "solution": world.random_example,
    }
)


def random_readings(
    rng: random.Random,
    profiles: Mapping[str, tuple[Profile, float]],
    encoder: PromptEncoder,
    shares: Mapping[str, float],
) -> Iterator[Sample]:
    """Endless samples: `shares` of each kind, and what is framed over profiles by their weights.

    Kinds are `counts`, `sums`, `quiz` and `solution`, bare or behind `framed `.
    """
    weights = [weight for _, weight in profiles.values()]
    while True:
        profile = profiles[rng.choices(list(profiles), weights)[0]][0]
        kind = rng.choices(list(shares), list(shares.values()))[0]
        example = _EXAMPLES[kind.removeprefix(IN_FRAME)](rng)
        if not kind.startswith(IN_FRAME):
            yield bare_sample(example, profile, encoder)
            continue
        if profile.frame == "multi_turn" and not kind.endswith("solution"):
            example = replace(example, steps=example.steps[:MOST_TURNS])
        yield framed_sample(maybe_partial(example, rng), profile, encoder)


def bare_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """A picture and steps with nothing around them, and what is noted at their words."""
    images = case_of(example, profile).images
    steps = "\n".join(step.text for step in example.steps)
    text = encoder.text(Prompt((Message("user", (*images, steps)),)))
    ids, place_at = _tokens(text, encoder)
    return Sample(ids, images, tuple(_notes(example, text, place_at, encoder)))


def framed_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """All judgements of a rollout, and what is noted at the words of its steps.

    Args:
        example: a problem with one picture.
        profile: one without thinking, whose judgements are places of one text.
        encoder: of the model to be taught.
    """
    case = case_of(example, profile)
    frame = FRAMES[profile.frame]
    texts = [
        encoder.text(frame.judge(profile, case, Thought(""), example.labels[:index]))
        for index in range(len(example.labels))
    ]
    ids, place_at = _tokens(texts[-1], encoder)
    judged = tuple(
        Target(place_at[len(text)], encoder.verdict_ids[label], "judge")
        for text, label in zip(texts, example.labels, strict=True)
    )
    noted = tuple(_notes(example, texts[-1], place_at, encoder))
    numbers = tuple(_numbers((*judged, *noted), profile, encoder))
    return Sample(ids, case.images, (*judged, *noted, *numbers))


def _numbers(
    targets: Sequence[Target], profile: Profile, encoder: PromptEncoder
) -> Iterator[Target]:
    """The number of its step at every place where a step is judged, a claim stands or one ends."""
    done = {"judge": 0, "verdict": 0}  # how many steps were judged, and how many have ended
    for target in targets:
        if target.task == "truth":
            continue
        index = done["judge" if target.task == "judge" else "verdict"]
        token = _token(str(step_number(profile, index)), encoder)
        yield Target(target.place, token, "number", NUMBER_LAYER)
        if target.task in done:
            done[target.task] += 1


def _tokens(text: str, encoder: PromptEncoder) -> tuple[tuple[int, ...], dict[int, int]]:
    """Ids of a prompt, and for a number of characters the last token that has been read of them."""
    coded = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = []
    place_at: dict[int, int] = {}
    for token, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
        ids += [token] * (len(PLACES) if token == encoder.image_token_id else 1)
        place_at |= dict.fromkeys(range(start + 1, end + 1), len(ids) - 1)
    return tuple(ids), place_at


def _notes(
    example: world.Example, text: str, place_at: Mapping[int, int], encoder: PromptEncoder
) -> Iterator[Target]:
    end = 0
    for step in example.steps:
        start = text.index(step.text, end)
        end = start + len(step.text)
        here = text.index(plain(step.sentence), start)
        sound = True
        for part in step.sentence:
            if isinstance(part, Truth):
                # What would come of numbers that are wrong takes more than looking it up.
                if sound:
                    word = f" {part.words.split()[0].upper()}"
                    yield Target(place_at[here], _token(word, encoder), "truth", TRUTH_LAYER)
            elif isinstance(part, str):
                here += len(part)
            else:
                here += len(f" {part.word}")
                sound = sound and holds(part)
                word = " yes" if holds(part) else " no"
                yield Target(place_at[here], _token(word, encoder), "tick", TICK_LAYER)
        yield Target(place_at[end], _token((" wrong", " right")[step.label], encoder), "verdict")


def _token(word: str, encoder: PromptEncoder) -> int:
    token: int = encoder.tokenizer.encode(word, add_special_tokens=False)[0]
    return token
