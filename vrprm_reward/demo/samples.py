"""Training samples of the demo checkpoint: prompts as the scorer renders them, with targets."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from vrprm_reward.demo import drills, world
from vrprm_reward.demo.moves import NOTHING, NUMBERS, RELATIONS
from vrprm_reward.demo.noise import Noise
from vrprm_reward.demo.scene import COLOURS, KINDS, PLACES, SHAPES, draw, random_scene
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.images import FinalImage, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case, numbered, step_number, thought

_VERDICT = re.compile(r"\\boxed\{(?=[01])")
"""What a verdict stands behind in the text of a flawless reward model."""


class Target(NamedTuple):
    """What is to be learnt at one place."""

    place: int
    """Index of the token after which the model is asked."""

    token: int
    """Id that should follow."""

    task: str
    """What a note is about (see `world.Note`), `think` or `judge`: losses are averaged
    over each, so that a few hard words are not drowned by many easy ones. One layer for each."""

    layer: int | None = None
    """How many layers the answer may take; all of them if none is said."""


@dataclass(frozen=True)
class Sample:
    """A token sequence, or a tree of them: a common beginning and several ways to go on."""

    ids: tuple[int, ...]
    images: tuple[FinalImage, ...]
    targets: tuple[Target, ...]
    branches: tuple[int, ...] = ()
    """Where each continuation of a tree begins. They do not see one another."""

    def __len__(self) -> int:
        return len(self.ids)


def case_of(example: world.Example, profile: Profile) -> Case:
    """An example as the scorer would show it."""
    return Case(
        question=example.question,
        steps=tuple(step.text for step in example.steps),
        images=final_pixels([example.image], profile.pixels),
    )


def see_sample(rng: random.Random, profile: Profile, encoder: PromptEncoder) -> Sample:
    """Notes about a picture, without anything around them."""
    scene = random_scene(rng)
    images = final_pixels([draw(scene, rng)], profile.pixels)
    prompt = Prompt((Message("user", (*images, "Take notes.")),))
    notes = world.notes(scene)
    text = thought(profile, world.written(notes))
    return _answered(encoder, prompt, text, _about(notes, text))


def _about(notes: Sequence[world.Note], text: str) -> list[str]:
    """For each character of a text with these notes in it, the task of a token that ends there.

    Tokens are told by their last character: a space in front belongs to the word behind it.
    """
    start = text.index(world.written(notes))
    tasks = ["think"] * start
    for note in notes:
        tasks += [note.about] * len(note.text)
    return tasks + ["think"] * (len(text) - len(tasks))


def check_sample(
    example: world.Example,
    known: Sequence[world.Note],
    profile: Profile,
    encoder: PromptEncoder,
    *,
    picture: bool = False,
) -> Sample:
    """Steps, what is known, and the checks. Without the picture, what is seen is not asked for."""
    images = case_of(example, profile).images if picture else ()
    steps = "\n".join(numbered(profile, i, step.text) for i, step in enumerate(example.steps))
    notes = [*known, *world.checks(example.steps, profile.steps.first_number)]
    text = thought(profile, world.written(notes))
    prompt = Prompt((Message("user", (*images, steps)),))
    sample = _answered(encoder, prompt, text, _about(notes, text))
    if picture:
        return sample
    seen = ("place", "colour", "shape") if len(known) > len(KINDS) * 2 else ("place", "count")
    targets = tuple(target for target in sample.targets if target.task not in seen)
    return replace(sample, targets=targets)


def thinking_of(example: world.Example, profile: Profile) -> list[world.Note]:
    """What a flawless reward model thinks: notes of the picture, then a check of every step."""
    checks = world.checks(example.steps, profile.steps.first_number)
    return [*world.notes(example.scene), *checks]


def answer_of(example: world.Example, profile: Profile) -> str:
    """What a flawless reward model generates before it judges."""
    thinking = thought(profile, world.written(thinking_of(example, profile)))
    if profile.frame != "score_json":
        return thinking
    lines = [
        f"Step {step_number(profile, i)}: {_WORDS[step.label]}\\boxed{{{step.label}}}\n"
        for i, step in enumerate(example.steps)
    ]
    marks = profile.sections
    return f"{thinking}\n{marks.analysis}\n{''.join(lines)}{marks.scores}\n"


_WORDS = ("wrong", "right")


def think_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """The thinking request with the notes of a careful reader."""
    prompt = think_prompt(profile, case_of(example, profile))
    answer = answer_of(example, profile) + encoder.tokenizer.eos_token
    tasks = _about(thinking_of(example, profile), answer)
    for found in _VERDICT.finditer(answer):
        tasks[found.end()] = "judge"
    return _answered(encoder, prompt, answer, tasks)


def judge_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """All judgements of a rollout, as a tree: what their prompts share stands once.

    Where every prompt begins with the one before it (the judgements are places of one text), the
    tree is a single sequence.
    """
    case, notes = case_of(example, profile), Thought(world.written(thinking_of(example, profile)))
    encoded = [
        encoder.encode(FRAMES[profile.frame].judge(profile, case, notes, example.labels[:index]))
        for index in range(len(example.labels))
    ]
    prompts = [tuple(int(i) for i in e.ids) for e in encoded]
    verdicts = [encoder.verdict_ids[label] for label in example.labels]
    if all(longer[: len(p)] == p for p, longer in pairwise(prompts)):
        targets = tuple(
            Target(len(p) - 1, v, "judge") for p, v in zip(prompts, verdicts, strict=True)
        )
        return Sample(prompts[-1], encoded[-1].images, targets)
    shared = min(_common(prompts[0], other) for other in prompts[1:])
    ids, branches, targets = list(prompts[0][:shared]), [], ()
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        branches.append(len(ids))
        ids += prompt[shared:]
        targets += (Target(len(ids) - 1, verdict, "judge"),)
    return Sample(tuple(ids), encoded[0].images, targets, tuple(branches))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _answered(encoder: PromptEncoder, prompt: Prompt, answer: str, tasks: Sequence[str]) -> Sample:
    """A prompt and its answer, all to be learnt; `tasks` by character."""
    start = encoder.encode(prompt)
    coded = encoder.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    end, spans = coded["input_ids"], coded["offset_mapping"]
    targets = tuple(
        Target(len(start) + i - 1, token, tasks[end - 1])
        for i, (token, (_, end)) in enumerate(zip(end, spans, strict=True))
    )
    return Sample((*(int(i) for i in start.ids), *end), start.images, targets)


def random_samples(
    rng: random.Random,
    profiles: Mapping[str, tuple[Profile, float]],
    encoder: PromptEncoder,
    shares: Mapping[str, float],
    noisy: float = 0.0,
) -> Iterator[Sample]:
    """Endless samples: `shares` of each kind of sample, over profiles by their weights.

    In the share `noisy` of whole examples, text that claims nothing stands around the steps.
    """
    weights = [weight for _, weight in profiles.values()]
    noises = {name: Noise(profile, encoder.added_tokens) for name, (profile, _) in profiles.items()}
    while True:
        name = rng.choices(list(profiles), weights)[0]
        profile = profiles[name][0]
        # Without noise nothing is drawn for it, so that a seed gives the samples it always gave.
        noise = noises[name] if noisy and rng.random() < noisy else None
        task = rng.choices(list(shares), list(shares.values()))[0]
        if task == "see":
            yield see_sample(rng, profile, encoder)
            continue
        if task == "claims":
            example = drills.tally_example(rng, error_rate=0.95)
            yield check_sample(example, world.counts(example.scene), profile, encoder)
            continue
        if task == "drill":
            example = drills.drill_example(rng)
            yield check_sample(example, world.counts(example.scene), profile, encoder)
            continue
        if task in ("quiz", "picture_quiz"):
            # Where most claims are true, to repeat them is a lure.
            example = drills.quiz_example(rng, error_rate=rng.choice((0.5, 0.95)))
            known, picture = world.notes(example.scene), task == "picture_quiz"
            yield check_sample(example, known, profile, encoder, picture=picture)
            continue
        if task == "verdicts":
            # Where half of the steps are wrong, a verdict can only be looked up.
            if profile.frame == "score_json":
                example = _with(noise, drills.quiz_example(rng), rng)
                yield think_sample(example, profile, encoder)
            else:
                many = rng.choice((drills.drill_example, drills.quiz_example))
                example = _with(noise, maybe_partial(many(rng), rng), rng)
                yield judge_sample(example, profile, encoder)
            continue
        example = _with(noise, maybe_partial(world.random_example(rng), rng), rng)
        if task == "check":
            yield check_sample(example, world.notes(example.scene), profile, encoder)
            continue
        # What score_json judges is part of its generated text.
        if task == "think" or profile.frame == "score_json":
            yield think_sample(example, profile, encoder)
        else:
            yield judge_sample(example, profile, encoder)


def maybe_partial(example: world.Example, rng: random.Random) -> world.Example:
    """Now and then only the first steps: unfinished responses are scored too."""
    if rng.random() < 0.85:
        return example
    return replace(example, steps=example.steps[: rng.randint(1, len(example.steps))])


def _with(noise: Noise | None, example: world.Example, rng: random.Random) -> world.Example:
    return example if noise is None else noise.around(example, rng)


WORD_REPEATS = 100


def tokenizer_texts(rng: random.Random, profiles: Sequence[Profile], count: int) -> Iterator[str]:
    """Text to train the tokenizer on: what the prompts and the notes are made of.

    What a step claims and what is held against it are words of one token each, rare ones too.
    """
    claimed = (*NUMBERS, *RELATIONS, *PLACES, *COLOURS, *SHAPES, NOTHING)
    yield from (f" {word} {word.upper()}" for word in claimed * WORD_REPEATS)
    for number in range(count):
        example = world.random_example(rng)
        profile = profiles[number % len(profiles)]
        case = Case(example.question, tuple(step.text for step in example.steps), ())
        answers = (answer_of(example, profile),) * len(example.steps)
        notes = Thought(world.written(thinking_of(example, profile)), prefixes=answers)
        frame = FRAMES[profile.frame]
        index = rng.randrange(len(example.steps))
        for prompt in (
            think_prompt(profile, case),
            frame.judge(profile, case, notes, example.labels[:index]),
        ):
            for message in prompt.messages:
                yield f"{message.role}\n" + "".join(p for p in message.parts if isinstance(p, str))
