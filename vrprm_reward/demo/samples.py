"""Training samples of the demo checkpoint: prompts as the scorer renders them, with targets."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from vrprm_reward.demo import world
from vrprm_reward.demo.moves import NUMBERS, spelt
from vrprm_reward.demo.scene import COLOURS, KINDS, SHAPES, Kind, draw, random_scene
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.images import FinalImage, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case, step_number, thought

_VERDICT = re.compile(r"(?:\\boxed\{|^Step \d+: )(?=[01])", re.MULTILINE)
"""What a verdict stands behind in the text of a flawless reward model."""


_NUMBER = "|".join(NUMBERS)
_SEEN = re.compile(
    rf" (?:({'|'.join(COLOURS)})|({'|'.join(SHAPES)})|({_NUMBER}))\b(?! (?:{_NUMBER})\b)"
)
"""Colours, shapes and numbers in notes, but not the names that numbers stand behind."""


CLAIMS = 10
"""Claims in a sample about one scene."""


class Target(NamedTuple):
    """What is to be learnt at one place."""

    place: int
    """Index of the token after which the model is asked."""

    token: int
    """Id that should follow."""

    task: str
    """`see`, `colour`, `shape`, `count`, `recall`, `truth`, `think`, `judge` or `text`: losses are
    averaged over each."""


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
    return _answered(encoder, prompt, thought(profile, notes), "see", _noted(profile, notes))


def _noted(profile: Profile, notes: str) -> dict[int, str]:
    """Where notes, in their thinking, name what only the picture tells, and the task it is.

    Each is a task of its own, so that the words in between do not drown it.
    """
    start = thought(profile, notes).index(notes)
    tasks = ("colour", "shape", "count")
    return {
        start + found.start(): tasks[(found.lastindex or 1) - 1] for found in _SEEN.finditer(notes)
    }


def recall_sample(rng: random.Random, encoder: PromptEncoder) -> Sample:
    """Counts said over and over in new orders: to look one up by its name is all there is to learn.

    Models learn to look things up long before anything else where most tokens teach it, and
    hardly ever where few do.
    """
    facts = _random_numbers(rng)
    ids: list[int] = []
    targets: list[Target] = []
    for turn in range(7):
        for kind, number in rng.sample(list(facts.items()), len(facts)):
            fact = world.count_note(kind, number)
            if turn > 1:
                fact = f" {kind.noun().split()[0]} {fact.split()[1]}"
            said = encoder.tokenizer.encode(fact, add_special_tokens=False)
            if turn:
                targets.append(Target(len(ids) + len(said) - 2, said[-1], "recall"))
            ids += said
    return Sample(tuple(ids), (), tuple(targets))


def _random_numbers(rng: random.Random) -> dict[Kind, int]:
    """Numbers that nobody could guess, of every kind in any order."""
    kinds = rng.sample(KINDS, len(KINDS))
    return {kind: rng.randint(0, 7) for kind in kinds}


def claims_sample(rng: random.Random, profile: Profile, encoder: PromptEncoder) -> Sample:
    """Random numbers and claims about them, half of them false, a verdict behind each.

    At the number that a claim says the true one is asked for, and from there on the verdict, up to
    the place where the profile asks for it: to compare two numbers is hard to find out, and easiest
    where both meet.
    """
    numbers = _random_numbers(rng)
    ask_for, after = _around_verdict(profile)
    text = "".join(world.count_note(kind, number) for kind, number in numbers.items()) + "\n"
    recalled: set[int] = set()
    true: dict[int, int] = {}
    judged: dict[int, int] = {}
    for _ in range(CLAIMS):
        step, move = world.random_claim(numbers, rng)
        last_word, begin = len(text) + step.text.rindex(" "), len(text) + len(step.text) - 1
        if move.kind == "count":
            said = spelt(str(numbers[move.of[0]]))
            true[last_word] = encoder.tokenizer.encode(f" {said}", add_special_tokens=False)[0]
            if step.label:
                recalled.add(last_word)
        text += step.text + ask_for
        judged |= dict.fromkeys(range(begin, len(text)), step.label)
        text += f"{step.label}{after}"
    coded = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = tuple(coded["input_ids"])
    targets = []
    for place, (begin, _) in enumerate(coded["offset_mapping"]):
        if begin in recalled:
            targets.append(Target(place - 1, ids[place], "recall"))
        if begin in true:
            targets.append(Target(place, true[begin], "truth"))
        if begin in judged:
            targets.append(Target(place, encoder.verdict_ids[judged[begin]], "judge"))
    return Sample(ids, (), tuple(targets))


def _around_verdict(profile: Profile) -> tuple[str, str]:
    if profile.frame in ("two_stage", "multi_turn"):
        return f"\n{profile.judge.request}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"
    return "\\boxed{", "}\n"


def thinking_of(example: world.Example, profile: Profile) -> str:
    """What a flawless reward model thinks.

    A verdict is easy right behind the step and its notes. Where the frame asks for verdicts
    elsewhere, the steps are gone through one by one in the thinking.
    """
    notes = world.notes(example.scene)
    if profile.frame != "answer_block":
        return notes
    checks = ""
    for index, step in enumerate(example.steps):
        number, label = step_number(profile, index), step.label
        checks += f"\n{number}: {step.text}\\boxed{{{label}}}\nStep {number}: {label}"
    return notes + checks


def answer_of(example: world.Example, profile: Profile) -> str:
    """What a flawless reward model generates before it judges."""
    thinking = thought(profile, thinking_of(example, profile))
    if profile.frame != "score_json":
        return thinking
    lines = [
        f"Step {step_number(profile, i)}: {step.text}\\boxed{{{step.label}}}\n"
        for i, step in enumerate(example.steps)
    ]
    marks = profile.sections
    return f"{thinking}\n{marks.analysis}\n{''.join(lines)}{marks.scores}\n"


def think_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """The thinking request with the notes of a careful reader."""
    prompt = think_prompt(profile, case_of(example, profile))
    answer = answer_of(example, profile) + encoder.tokenizer.eos_token
    spots = _noted(profile, world.notes(example.scene))
    spots |= {found.end(): "judge" for found in _VERDICT.finditer(answer)}
    return _answered(encoder, prompt, answer, "think", spots)


def judge_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """All judgements of a rollout, as a tree: what their prompts share stands once.

    Where every prompt begins with the one before it (the judgements are places of one text), the
    tree is a single sequence.
    """
    case, notes = case_of(example, profile), Thought(thinking_of(example, profile))
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


def _answered(
    encoder: PromptEncoder, prompt: Prompt, answer: str, task: str, spots: Mapping[int, str]
) -> Sample:
    """A prompt and its answer, all to be learnt; `spots` are other tasks by character."""
    start = encoder.encode(prompt)
    coded = encoder.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    end, begins = coded["input_ids"], (begin for begin, _ in coded["offset_mapping"])
    targets = tuple(
        Target(len(start) + i - 1, token, spots.get(begin, task))
        for i, (token, begin) in enumerate(zip(end, begins, strict=True))
    )
    return Sample((*(int(i) for i in start.ids), *end), start.images, targets)


def random_samples(
    rng: random.Random,
    profiles: Mapping[str, tuple[Profile, float]],
    encoder: PromptEncoder,
    shares: Mapping[str, float],
) -> Iterator[Sample]:
    """Endless samples: `shares` of each kind of sample, over profiles by their weights."""
    weights = [weight for _, weight in profiles.values()]
    while True:
        profile = rng.choices([profile for profile, _ in profiles.values()], weights)[0]
        task = rng.choices(list(shares), list(shares.values()))[0]
        if task == "see":
            yield see_sample(rng, profile, encoder)
            continue
        if task == "recall":
            yield recall_sample(rng, encoder)
            continue
        if task == "claims":
            yield claims_sample(rng, profile, encoder)
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
        notes = Thought(thinking_of(example, profile), prefixes=(answer_of(example, profile),) * 99)
        frame = FRAMES[profile.frame]
        index = rng.randrange(len(example.steps))
        for prompt in (
            think_prompt(profile, case),
            frame.judge(profile, case, notes, example.labels[:index]),
        ):
            for message in prompt.messages:
                yield f"{message.role}\n" + "".join(p for p in message.parts if isinstance(p, str))
