"""Measure the demo checkpoint on held-out problems: `python -m vrprm_reward.demo.evaluate`.

The model is used as everybody uses it: through the scorer, with its own thinking if it has one.
"""

import math
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score

from vrprm_reward.demo import world
from vrprm_reward.demo.recipe import PROFILES, READING_PROFILES, demo_profile
from vrprm_reward.demo.scene import PLACES
from vrprm_reward.process_reward import (
    DEMO,
    DEMO_NO_THINK,
    PACKAGED,
    ProcessReward,
    load_process_reward,
)
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout, Usage

HELD_OUT_SEED = 20_000_003
"""Problems are drawn from this seed; training uses small seeds."""

BINS = 10


@dataclass(frozen=True)
class Figures:
    """Figures over the steps of the scored rollouts; macro-F1 counts unscored steps as wrong."""

    steps: int
    unscored: int
    macro_f1: float
    ece: float
    mean_rounds: float
    """Rounds of judgements in sequence, per scored rollout."""

    mean_prompt_tokens: float
    """Tokens of all prompts, shared prefixes counted each, per scored rollout."""

    mean_generated_tokens: float
    """Tokens of thinking, per scored rollout."""

    seconds: float


def rollout_of(example: world.Example) -> Rollout:
    """An example as a user would hand it in."""
    response, steps = join_steps([step.text for step in example.steps])
    problem = Problem(question=example.question, images=(example.image,))
    return Rollout(problem=problem, response=response, steps=steps)


def held_out(count: int, seed: int = HELD_OUT_SEED) -> list[world.Example]:
    """Examples that no training run has seen."""
    rng = random.Random(seed)
    return [world.random_example(rng) for _ in range(count)]


def with_shuffled_images(examples: Sequence[world.Example]) -> list[Rollout]:
    """Every rollout with the image of the next problem."""
    rollouts = []
    for index, example in enumerate(examples):
        other = examples[(index + 1) % len(examples)]
        rollout = rollout_of(example)
        problem = Problem(question=example.question, images=(other.image,))
        rollouts.append(rollout.model_copy(update={"problem": problem}))
    return rollouts


def expected_calibration_error(p_correct: Sequence[float], labels: Sequence[int]) -> float:
    """Mean gap between probability and frequency over ten bins of equal width, by bin size.

    Guo et al. 2017, arXiv 1706.04599, equation 3. Not a number where there are no labels.
    """
    bins: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for p, label in zip(p_correct, labels, strict=True):
        bins[min(BINS - 1, int(p * BINS))].append((p, label))
    if not labels:
        return math.nan
    gaps = (abs(sum(p for p, _ in rows) - sum(y for _, y in rows)) for rows in bins.values())
    return sum(gaps) / len(labels)


def figures(
    labels: Iterable[Sequence[int]], scores: Sequence[ProcessScore], seconds: float
) -> Figures:
    """Compare scores with true labels."""
    true: list[int] = []
    predicted: list[int] = []
    probabilities: list[float] = []
    scored_labels: list[int] = []
    unscored = 0
    for row, score in zip(labels, scores, strict=True):
        true += row
        if score.scored:
            predicted += score.judgements
            probabilities += score.p_correct
            scored_labels += row
        else:
            unscored += 1
            predicted += [1 - label for label in row]
    done = [score for score in scores if score.scored]
    total = sum((score.usage for score in done), Usage())
    return Figures(
        steps=len(true),
        unscored=unscored,
        macro_f1=float(f1_score(true, predicted, average="macro")),
        ece=expected_calibration_error(probabilities, scored_labels),
        mean_rounds=total.rounds / max(1, len(done)),
        mean_prompt_tokens=total.prompt_tokens / max(1, len(done)),
        mean_generated_tokens=total.generated_tokens / max(1, len(done)),
        seconds=seconds,
    )


def measure(
    reward: ProcessReward, examples: Sequence[world.Example], rollouts: Sequence[Rollout]
) -> tuple[Figures, list[ProcessScore]]:
    """Score rollouts and compare them with the labels of the examples they were made of."""
    began = time.monotonic()
    scores = reward.score(rollouts)
    seconds = time.monotonic() - began
    return figures([example.labels for example in examples], scores, seconds), scores


def evaluate(
    model: Annotated[str, typer.Option(help="demo, demo_no_think, or a checkpoint folder.")] = DEMO,
    profile: Annotated[
        str | None,
        typer.Option(help="Name or path of a profile; if none, that of the packaged checkpoint."),
    ] = None,
    rollouts: Annotated[int, typer.Option(help="How many held-out rollouts.")] = 500,
    schedule: Annotated[str, typer.Option(help="lockstep or fixed_point.")] = "lockstep",
    frames: Annotated[
        bool,
        typer.Option(
            help="One line for each frame instead, with thinking and without; those without are "
            "asked of demo_no_think if the model is demo."
        ),
    ] = False,
) -> None:
    """Print held-out figures, with the right images and with images shuffled between problems."""
    if frames and profile is not None:
        raise typer.BadParameter("has all profiles: leave --profile out", param_hint="--frames")
    examples = held_out(rollouts)
    table = Table(*_COLUMNS)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    if frames:
        for name, spoken, judge in frames_of(model):
            with closing(load_process_reward(judge, profile=spoken, schedule=schedule)) as reward:  # type: ignore[arg-type]
                found, _ = measure(reward, examples, [rollout_of(example) for example in examples])
            table.add_row(name, *_cells(found))
        console.print(table)
        return
    profile = profile or (model if model in PACKAGED else DEMO)
    reward = load_process_reward(model, profile=profile, schedule=schedule)  # type: ignore[arg-type]
    right, scores = measure(reward, examples, [rollout_of(example) for example in examples])
    shuffled, _ = measure(reward, examples, with_shuffled_images(examples))
    table.add_row(profile, *_cells(right))
    table.add_row(f"{profile}, images shuffled", *_cells(shuffled))
    console.print(table)
    console.print(_by("question type", [e.question_type for e in examples], examples, scores))
    names = [e.errors[0] if e.errors else "none" for e in examples]
    console.print(_by("planted error", names, examples, scores))
    if any(score.thinking for score in scores):
        console.print(f"Cells described as they are: {cells_noted_right(examples, scores):.4f}")


def frames_of(model: str) -> Iterator[tuple[str, Profile, str]]:
    """Names of what the packaged checkpoints were taught, its profile, and who is asked."""
    thinking = () if model == DEMO_NO_THINK else PROFILES
    for name in (*thinking, *READING_PROFILES):
        silent = model == DEMO and name in READING_PROFILES
        yield name, demo_profile(name), DEMO_NO_THINK if silent else model


_COLUMNS = (
    "profile", "steps", "macro-F1", "ECE", "unscored", "rounds", "prompt tokens", "thinking tokens",
    "seconds",
)  # fmt: skip

TABLE_WIDTH = 120
"""Characters: narrower, the headings would be cut where output is not a terminal."""


def _cells(row: Figures) -> tuple[str, ...]:
    return (
        str(row.steps),
        f"{row.macro_f1:.4f}",
        f"{row.ece:.4f}",
        str(row.unscored),
        f"{row.mean_rounds:.2f}",
        f"{row.mean_prompt_tokens:.0f}",
        f"{row.mean_generated_tokens:.0f}",
        f"{row.seconds:.0f}",
    )


def _by(
    title: str,
    names: Sequence[str],
    examples: Sequence[world.Example],
    scores: Sequence[ProcessScore],
) -> Table:
    """Share of steps judged right, of all and of each label, by a property of the rollout."""
    found: dict[str, dict[int, list[bool]]] = defaultdict(lambda: {0: [], 1: []})
    for name, example, score in zip(names, examples, scores, strict=True):
        judged = score.judgements or [1 - label for label in example.labels]
        for verdict, label in zip(judged, example.labels, strict=True):
            found[name][label].append(verdict == label)
    table = Table(title, "accuracy", "wrong steps found", "right steps passed")
    for name, hits in sorted(found.items()):
        table.add_row(name, _share(hits[0] + hits[1]), _share(hits[0]), _share(hits[1]))
    return table


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits) / len(hits):.4f} of {len(hits)}" if hits else "none"


def cells_noted_right(examples: Sequence[world.Example], scores: Sequence[ProcessScore]) -> float:
    """Share of the cells of all pictures that the thinking describes as they are."""
    hits = 0
    for example, score in zip(examples, scores, strict=True):
        lines = (score.thinking or "").split("\n")
        cells = world.written(world.notes(example.scene)).split("\n")[: len(PLACES)]
        hits += sum(cell in lines for cell in cells)
    return hits / (len(examples) * len(PLACES))


if __name__ == "__main__":
    typer.run(evaluate)
