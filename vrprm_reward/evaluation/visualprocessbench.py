"""VisualProcessBench (arXiv 2503.10291): its own files, and its figures.

A row is `{image, question, answer, response: {steps, process_correctness}, policy_model,
data_source}`, with a label 1, 0 (neutral) or -1 for each step. It has no id; its line is its id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrprm_reward.blank import is_blank
from vrprm_reward.errors import InputError
from vrprm_reward.evaluation.metrics import CORRECT, INCORRECT, NEUTRAL, Measured
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields, kind_of, unusable_reference
from vrprm_reward.jobs.keys import problem_key
from vrprm_reward.steps import join_steps
from vrprm_reward.types import Problem, ProcessScore, Rollout

NO_SOURCE = "unknown"


@dataclass(frozen=True)
class BenchmarkRow:
    """A labelled rollout."""

    line: int
    """1-based number of the row."""

    id: str | int
    """The same, unless the row has an id."""

    rollout: Rollout
    """Its steps that are not blank, with the reference answer if there is one."""

    labels: tuple[int, ...]
    """1, 0 or -1 for every step, blank ones included."""

    places: tuple[int, ...]
    """For every step of the rollout, its index in `labels`."""

    source: str
    """The data set that the problem comes from."""

    policy_model: str | None
    """Who wrote the response."""

    def problem_key(self) -> bytes:
        """Equal for rows with the same question and images."""
        return problem_key(self.rollout.problem)

    def p_correct(self, score: ProcessScore) -> list[float | None] | None:
        """The probability of every labelled step; None in all where the rollout is unscored."""
        if not score.scored:
            return None
        found: list[float | None] = [None] * len(self.labels)
        for place, p in zip(self.places, score.p_correct, strict=True):
            found[place] = p
        return found


def find_rows(path: Path) -> Path:
    """The file of rows: the path itself, or the one file of rows in a folder.

    Raises:
        InputError: there is no such file, or several.
    """
    if not path.is_dir():
        return path
    found = sorted(file for kind in ("*.jsonl", "*.parquet") for file in path.glob(kind))
    named = [file for file in found if file.stem == "test"]
    if len(named or found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(
            f"{str(path)!r} should hold one file of rows, test.jsonl, and has {names}: "
            "name the file"
        )
    return (named or found)[0]


def benchmark_row(fields: Fields, images: ImageSettings) -> BenchmarkRow:
    """One row of the benchmark. Raises `RowError`.

    Images are looked for in the folder of the file, then in its folder `images`.
    """
    response = fields.values.get("response")
    if not isinstance(response, dict):
        fields.refuse("response", f"{kind_of(response)}: give an object with steps and labels")
    steps = _texts(fields, "response.steps", response.get("steps"))
    labels = _labels(fields, response.get("process_correctness"), len(steps))
    places = tuple(index for index, text in enumerate(steps) if not is_blank(text))
    text, located = join_steps([steps[index] for index in places])
    problem = Problem(
        question=fields.question(),
        images=_images(fields, images),
        reference_answer=_answer(fields),
    )
    return BenchmarkRow(
        line=fields.line,
        id=fields.id(),
        rollout=Rollout(problem=problem, response=text, steps=located),
        labels=labels,
        places=places,
        source=fields.text("data_source") or NO_SOURCE,
        policy_model=fields.text("policy_model"),
    )


def _texts(fields: Fields, name: str, values: object) -> list[str]:
    if not isinstance(values, list):
        fields.refuse(name, f"{kind_of(values)}: give a list of texts")
    return [fields.checked_text(f"{name}[{index}]", value) for index, value in enumerate(values)]


def _labels(fields: Fields, values: object, steps: int) -> tuple[int, ...]:
    name = "response.process_correctness"
    if not isinstance(values, list) or len(values) != steps:
        given = f"{len(values)} labels" if isinstance(values, list) else kind_of(values)
        fields.refuse(name, f"{given} for {steps} steps: give one label for each step")
    for index, value in enumerate(values):
        if isinstance(value, bool) or value not in (CORRECT, NEUTRAL, INCORRECT):
            fields.refuse(f"{name}[{index}]", f"{value!r}: a label is 1, 0 (neutral) or -1")
    return tuple(int(value) for value in values)


def _answer(fields: Fields) -> str | None:
    """The reference answer; numbers are kept as they are written."""
    value = fields.values.get("answer")
    return str(value) if isinstance(value, int | float) else fields.text("answer")


def _images(fields: Fields, settings: ImageSettings) -> tuple[str | bytes, ...]:
    """As `Fields.images`, but a path that is not in the folder may be in its folder `images`."""
    name = "image" if fields.values.get("images") is None else "images"
    values = fields.values.get(name)
    listed = values if isinstance(values, list) else [values]
    moved = [_in_images(value, settings) if isinstance(value, str) else value for value in listed]
    return Fields({name: None if values is None else moved}, fields.line).images(settings)


def _in_images(reference: str, settings: ImageSettings) -> str:
    inside = f"images/{reference}"
    if unusable_reference(reference, settings) and not unusable_reference(inside, settings):
        return inside
    return reference


@dataclass
class Benchmark:
    """The figures of all rows, pooled and by source."""

    pooled: Measured = field(default_factory=Measured)
    """All steps together: its macro-F1 is the official overall figure."""

    by_source: dict[str, Measured] = field(default_factory=dict)

    def add(self, row: BenchmarkRow, score: ProcessScore) -> None:
        """Count one rollout in."""
        p_correct = row.p_correct(score)
        for measured in (self.pooled, self.by_source.setdefault(row.source, Measured())):
            measured.add(row.labels, p_correct)

    @property
    def mean_source_macro_f1(self) -> float | None:
        """Mean of the macro-F1 of all sources, unweighted; None without rows."""
        found = [measured.official.macro_f1 for measured in self.by_source.values()]
        return sum(found) / len(found) if found else None

    def figures(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "overall_step_macro_f1": self.pooled.official.macro_f1,
            "mean_source_macro_f1": self.mean_source_macro_f1,
            "pooled": self.pooled.figures(),
            "by_source": {
                name: measured.figures() for name, measured in sorted(self.by_source.items())
            },
        }


def label_values(row: BenchmarkRow, judged: Sequence[float | None] | None) -> dict[str, Any]:
    """What a record of this benchmark has besides the score."""
    return {
        "source": row.source,
        "policy_model": row.policy_model,
        "labels": list(row.labels),
        "step_labels": [row.labels[place] for place in row.places],
        "p_of_labels": None if judged is None else list(judged),
    }
