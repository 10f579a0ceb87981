"""Training samples of the demo checkpoint: prompts as the scorer renders them, with targets."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vrprm_reward.demo import world
from vrprm_reward.demo.scene import PLACES
from vrprm_reward.engines.engine import Message, Prompt
from vrprm_reward.engines.local.encode import PromptEncoder
from vrprm_reward.images import final_pixels
from vrprm_reward.scoring.frames import frame_of
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case, thought


@dataclass(frozen=True)
class Sample:
    """Token ids of a prompt and its answer; `prompt_length` ids carry no loss."""

    ids: tuple[int, ...]
    prompt_length: int
    images: tuple[object, ...]
    task: str

    def __len__(self) -> int:
        return len(self.ids)


def case_of(example: world.Example, profile: Profile) -> Case:
    """An example as the scorer would show it."""
    return Case(
        question=example.question,
        steps=tuple(step.text for step in example.steps),
        images=final_pixels([example.image], profile.pixels),
    )


def caption_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """Say what is in every cell: how the model learns to see."""
    images = final_pixels([example.image], profile.pixels)
    prompt = Prompt((Message("user", (*images, "Describe the picture.")),))
    return _sample(encoder, prompt, f"<think>{world.picture_notes(example.scene)}", "caption")


def think_sample(example: world.Example, profile: Profile, encoder: PromptEncoder) -> Sample:
    """The thinking request with the notes of a careful reader."""
    prompt = frame_of(profile).think(profile, case_of(example, profile))
    answer = thought(profile, world.notes(example)) + encoder.tokenizer.eos_token
    return _sample(encoder, prompt, answer, "think")


def judge_sample(
    example: world.Example, profile: Profile, encoder: PromptEncoder, index: int
) -> Sample:
    """The request for the verdict of step `index`, after true verdicts of the steps before."""
    prompt = frame_of(profile).judge(
        profile, case_of(example, profile), world.notes(example), example.labels[:index]
    )
    return _sample(encoder, prompt, str(example.labels[index]), "judge")


def _sample(encoder: PromptEncoder, prompt: Prompt, answer: str, task: str) -> Sample:
    start = encoder.encode(prompt)
    end = encoder.tokenizer.encode(answer, add_special_tokens=False)
    return Sample((*start.ids, *end), len(start.ids), start.images, task)


def random_samples(
    rng: random.Random,
    profiles: Sequence[Profile],
    encoder: PromptEncoder,
    weights: dict[str, float],
    question_types: Sequence[str],
) -> Iterator[Sample]:
    """Endless samples; `weights` gives the share of each of `caption`, `think` and `judge`."""
    tasks = list(weights)
    while True:
        task = rng.choices(tasks, [weights[name] for name in tasks])[0]
        profile = rng.choice(profiles)
        example = world.solve(world.random_question(rng, question_types), rng)
        if task == "caption":
            yield caption_sample(example, profile, encoder)
            continue
        example = _maybe_partial(example, rng)
        if task == "think":
            yield think_sample(example, profile, encoder)
        else:
            yield judge_sample(example, profile, encoder, _pick_step(example, rng))


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
    for _ in range(count):
        example = world.random_example(rng)
        profile = rng.choice(profiles)
        index = rng.randrange(len(example.steps))
        case = Case(example.question, tuple(step.text for step in example.steps), ())
        frame = frame_of(profile)
        for prompt in (
            frame.think(profile, case),
            frame.judge(profile, case, world.notes(example), example.labels[:index]),
        ):
            for message in prompt.messages:
                yield f"{message.role}\n" + "".join(p for p in message.parts if isinstance(p, str))
    yield " ".join(PLACES)
