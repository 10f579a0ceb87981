"""Training samples of the demo checkpoint: prompts as the scorer renders them, with targets."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from vrprm_reward.demo import world
from vrprm_reward.demo.scene import draw, random_scene
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.images import FinalImage, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case, step_number, thought


class Target(NamedTuple):
    """What is to be learnt at one place."""

    place: int
    """Index of the token after which the model is asked."""

    token: int
    """Id that should follow."""

    task: str
    """`see`, `think`, `judge` or `text`: losses are averaged over each."""


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
    return _answered(encoder, prompt, thought(profile, world.notes(scene)), "see")


def answer_of(example: world.Example, profile: Profile) -> str:
    """What a flawless reward model generates before it judges."""
    notes = thought(profile, world.notes(example.scene))
    if profile.frame != "score_json":
        return notes
    lines = [
        f"Step {step_number(profile, i)}: {'holds' if label else 'fails'} \\boxed{{{label}}}\n"
        for i, label in enumerate(example.labels)
    ]
    marks = profile.sections
    return f"{notes}\n{marks.analysis}\n{''.join(lines)}{marks.scores}\n"


def think_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """The thinking request with the notes of a careful reader."""
    prompt = think_prompt(profile, case_of(example, profile))
    answer = answer_of(example, profile) + encoder.tokenizer.eos_token
    return _answered(encoder, prompt, answer, "think")


def judge_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """All judgements of a rollout, as a tree: what their prompts share stands once.

    Where every prompt begins with the one before it (the judgements are places of one text), the
    tree is a single sequence.
    """
    case, notes = case_of(example, profile), Thought(world.notes(example.scene))
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
        return Sample(prompts[-1], encoded[-1].images, targets + _text_targets(prompts[-1], 0))
    shared = min(_common(prompts[0], other) for other in prompts[1:])
    ids, branches, targets = list(prompts[0][:shared]), [], ()
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        branches.append(len(ids))
        targets += _text_targets(prompt[shared:], len(ids))
        ids += prompt[shared:]
        targets += (Target(len(ids) - 1, verdict, "judge"),)
    return Sample(tuple(ids), encoded[0].images, targets, tuple(branches))


def _text_targets(ids: Sequence[int], start: int) -> tuple[Target, ...]:
    """Every next token of a text: to foresee what a step says is most of judging it."""
    return tuple(Target(start + i, token, "text") for i, token in enumerate(ids[1:]))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _answered(encoder: PromptEncoder, prompt: Prompt, answer: str, task: str) -> Sample:
    start = encoder.encode(prompt)
    end = encoder.tokenizer.encode(answer, add_special_tokens=False)
    first = len(start) - 1
    targets = tuple(Target(first + i, token, task) for i, token in enumerate(end))
    return Sample((*(int(i) for i in start.ids), *end), start.images, targets)


def random_samples(
    rng: random.Random,
    profiles: Mapping[str, tuple[Profile, float]],
    encoder: PromptEncoder,
    shares: Mapping[str, float],
) -> Iterator[Sample]:
    """Endless samples: `shares` of `see`, `think` and `judge`, over profiles by their weights."""
    weights = [weight for _, weight in profiles.values()]
    while True:
        profile = rng.choices([profile for profile, _ in profiles.values()], weights)[0]
        task = rng.choices(list(shares), list(shares.values()))[0]
        if task == "see":
            yield see_sample(rng, profile, encoder)
            continue
        example = _maybe_partial(world.random_example(rng), rng)
        # What score_json judges is part of its generated text.
        if task == "think" or profile.frame == "score_json":
            yield think_sample(example, profile, encoder)
        else:
            yield judge_sample(example, profile, encoder)


def _maybe_partial(example: world.Example, rng: random.Random) -> world.Example:
    """Now and then only the first steps: unfinished responses are scored too."""
    if rng.random() < 0.85:
        return example
    return replace(example, steps=example.steps[: rng.randint(1, len(example.steps))])


def tokenizer_texts(rng: random.Random, profiles: Sequence[Profile], count: int) -> Iterator[str]:
    """Text to train the tokenizer on: what the prompts and the notes are made of."""
    for number in range(count):
        example = world.random_example(rng)
        profile = profiles[number % len(profiles)]
        case = Case(example.question, tuple(step.text for step in example.steps), ())
        notes = Thought(world.notes(example.scene), prefixes=(answer_of(example, profile),) * 99)
        frame = FRAMES[profile.frame]
        index = rng.randrange(len(example.steps))
        for prompt in (
            think_prompt(profile, case),
            frame.judge(profile, case, notes, example.labels[:index]),
        ):
            for message in prompt.messages:
                yield f"{message.role}\n" + "".join(p for p in message.parts if isinstance(p, str))
