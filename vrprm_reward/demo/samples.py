"""Training samples of the demo checkpoint: prompts as the scorer renders them, with targets."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vrprm_reward.demo import world
from vrprm_reward.demo.moves import tally
from vrprm_reward.demo.questions import LARGEST_NUMBER, random_kind
from vrprm_reward.demo.scene import PLACES, draw, random_scene
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.images import FinalImage, final_pixels
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case, step_number, thought

ONE_SEQUENCE = ("multi_turn", "answer_block", "boxed_continuation")
"""Frames in which all judgements of a rollout are places of one text."""


@dataclass(frozen=True)
class Sample:
    """A token sequence and the places that carry loss."""

    ids: tuple[int, ...]
    images: tuple[FinalImage, ...]
    targets: Mapping[int, str]
    """Index of a token to predict -> `think`, `judge` or a skill."""

    def __len__(self) -> int:
        return len(self.ids)


def case_of(example: world.Example, profile: Profile) -> Case:
    """An example as the scorer would show it."""
    return Case(
        question=example.question,
        steps=tuple(step.text for step in example.steps),
        images=final_pixels([example.image], profile.pixels),
    )


def skill_sample(rng: random.Random, profile: Profile, encoder: PromptEncoder) -> Sample:
    """One of the skills that notes are made of, in a short text: see, count, quote, calculate."""
    skill = rng.choices(("see", "count", "quote", "calculate"), (3, 3, 3, 1))[0]
    if skill == "calculate":
        request, answer = "Calculate.", "\n".join(_sum(rng) for _ in range(8))
        return _answered(encoder, Prompt((Message("user", (request,)),)), answer, skill)
    if skill == "quote":
        steps = [step.text for step in world.random_example(rng).steps]
        rng.shuffle(steps)
        lines = "\n".join(
            f"Step {index}: {_scrambled(text, rng)}" for index, text in enumerate(steps)
        )
        prompt = Prompt((Message("user", (f"[Candidate Solution]\n{lines}\nRepeat.",)),))
        return _answered(encoder, prompt, lines, skill)
    scene = random_scene(rng)
    images = final_pixels([draw(scene, rng)], profile.pixels)
    answer = f"<think>{world.picture_notes(scene)}"
    if skill == "count":
        kinds = [random_kind(rng) for _ in range(3)]
        answer += "".join(f"\n{kind.noun()}. {tally(scene, kind)}" for kind in kinds)
    prompt = Prompt((Message("user", (*images, "Describe the picture.")),))
    return _answered(encoder, prompt, answer, skill)


def _sum(rng: random.Random) -> str:
    """A right calculation with numbers of the world."""
    operator = rng.choice("+-*")
    if operator == "*":
        first, second = rng.randint(0, LARGEST_NUMBER // 3), rng.randint(2, 3)
        return f"{first} * {second} = {first * second}"
    first, second = rng.randint(0, LARGEST_NUMBER), rng.randint(0, 9)
    if operator == "+":
        return f"{first} + {second} = {first + second}"
    first += second
    return f"{first} - {second} = {first - second}"


def _scrambled(text: str, rng: random.Random) -> str:
    """Words in any order, now and then: so that quoting cannot be learnt by heart."""
    words = text.split()
    if rng.random() < 0.5:
        rng.shuffle(words)
    return " ".join(words)


def answer_of(example: world.Example, profile: Profile) -> str:
    """What a flawless reward model generates before it judges."""
    notes = thought(profile, world.notes(example))
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


def judge_sample(
    example: world.Example, profile: Profile, encoder: PromptEncoder, index: int
) -> Sample:
    """The request for the verdict of step `index`, after true verdicts of the steps before."""
    case, notes = case_of(example, profile), Thought(world.notes(example))
    prompt = FRAMES[profile.frame].judge(profile, case, notes, example.labels[:index])
    return _answered(encoder, prompt, str(example.labels[index]), "judge")


def whole_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """Thinking and all verdicts of a frame whose judgements are places of one text."""
    case, notes = case_of(example, profile), Thought(world.notes(example))
    judge = FRAMES[profile.frame].judge
    starts = [
        encoder.encode(judge(profile, case, notes, example.labels[:index])).ids
        for index in range(len(example.labels))
    ]
    verdicts = [encoder.verdict_ids[label] for label in example.labels]
    ids = (*starts[-1], verdicts[-1])
    for start, verdict in zip(starts, verdicts, strict=True):
        assert ids[: len(start) + 1] == (*start, verdict), "a verdict must be a token of its own"
    targets = {len(start): "judge" for start in starts}
    images = case.images
    if profile.frame == "boxed_continuation":
        images = ()
    else:
        before = len(encoder.encode(think_prompt(profile, case)))
        length = len(encoder.tokenizer.encode(answer_of(example, profile)))
        targets |= dict.fromkeys(range(before, before + length), "think")
    return Sample(ids, images, targets)


def _answered(encoder: PromptEncoder, prompt: Prompt, answer: str, task: str) -> Sample:
    start = encoder.encode(prompt)
    end = encoder.tokenizer.encode(answer, add_special_tokens=False)
    places = range(len(start), len(start) + len(end))
    return Sample((*start.ids, *end), start.images, dict.fromkeys(places, task))


def random_samples(
    rng: random.Random,
    profiles: Mapping[str, tuple[Profile, float]],
    encoder: PromptEncoder,
    skills: float,
) -> Iterator[Sample]:
    """Endless samples: a share of single skills, the rest over profiles by their weights."""
    weights = [weight for _, weight in profiles.values()]
    while True:
        profile = rng.choices([profile for profile, _ in profiles.values()], weights)[0]
        if rng.random() < skills:
            yield skill_sample(rng, profile, encoder)
            continue
        example = _maybe_partial(world.random_example(rng), rng)
        if profile.frame in ONE_SEQUENCE and rng.random() < 0.7:
            yield whole_sample(example, profile, encoder)
        elif profile.frame == "two_stage" and rng.random() < 0.3:
            yield judge_sample(example, profile, encoder, _pick_step(example, rng))
        else:
            yield think_sample(example, profile, encoder)


def _maybe_partial(example: world.Example, rng: random.Random) -> world.Example:
    """Now and then only the first steps: unfinished responses are scored too."""
    if rng.random() < 0.85:
        return example
    return replace(example, steps=example.steps[: rng.randint(1, len(example.steps))])


def _pick_step(example: world.Example, rng: random.Random) -> int:
    """A step with either verdict equally likely, as far as the example has both."""
    wanted = rng.randint(0, 1)
    choices = [i for i, label in enumerate(example.labels) if label == wanted]
    return rng.choice(choices or range(len(example.steps)))


def tokenizer_texts(rng: random.Random, profiles: Sequence[Profile], count: int) -> Iterator[str]:
    """Text to train the tokenizer on: what the prompts and the notes are made of."""
    for number in range(count):
        example = world.random_example(rng)
        profile = profiles[number % len(profiles)]
        case = Case(example.question, tuple(step.text for step in example.steps), ())
        notes = Thought(world.notes(example), prefixes=(answer_of(example, profile),) * 99)
        frame = FRAMES[profile.frame]
        index = rng.randrange(len(example.steps))
        for prompt in (
            think_prompt(profile, case),
            frame.judge(profile, case, notes, example.labels[:index]),
        ):
            for message in prompt.messages:
                yield f"{message.role}\n" + "".join(p for p in message.parts if isinstance(p, str))
    yield " ".join(PLACES)
