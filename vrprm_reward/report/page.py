"""Scores -> one HTML page that needs nothing but itself."""

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from vrprm_reward.evaluation.metrics import NEUTRAL, Calibration
from vrprm_reward.report.pictures import Pictures
from vrprm_reward.report.plots import histogram, n_curves, position_plot, reliability_plot
from vrprm_reward.report.records import ReportRow
from vrprm_reward.sampling.best_of_n import ANY, MAJORITY, PASS, WEIGHTED, Accuracy

HISTOGRAM_BINS = 20
FEWEST_STEPS_AT_A_POSITION = 3
"""A mean over fewer steps says nothing, and is not drawn (unless no position has more)."""

SHOWN_RULES = {
    "mean": "mean (VRPRM)",
    WEIGHTED: "weighted majority",
    MAJORITY: "majority",
    PASS: "one of N is right",
    ANY: "one at random",
}


@dataclass
class Page:
    """A page in the making.

    Args:
        title: its heading.
        pictures: where its images go.
        most: rollouts that it takes; what comes after is left out, and the page says so.
    """

    title: str
    pictures: Pictures
    most: int
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0
    models: set[str] = field(default_factory=set)
    profiles: set[str] = field(default_factory=set)
    _questions: dict[str, int] = field(default_factory=dict)
    _problems: dict[tuple[str, ...], int] = field(default_factory=dict)
    _accuracy: Accuracy = field(default_factory=Accuracy)

    def add(self, row: ReportRow) -> None:
        """Take the rollouts of a row. Raises `RowError`."""
        found = list(row.rollouts())
        if len(self.rollouts) + len(found) > self.most:
            self.left_out += len(found)
            return
        candidates = row.candidates()
        if candidates is not None:
            self._accuracy.add(*candidates)
        self.models.add(str(row.values.get("model") or "not named"))
        self.profiles.add(str(row.values.get("profile") or "not named"))
        for rollout in found:
            question, images = rollout["question"], rollout["images"]
            problem = (question, *images)
            rollout["question"] = self._questions.setdefault(question, len(self._questions))
            rollout["images"] = [self.pictures.number(image) for image in images]
            rollout["problem"] = self._problems.setdefault(problem, len(self._problems))
            self.rollouts.append(rollout)

    def html(self, *, notes: Iterable[str] = ()) -> str:
        """The page."""
        data = {
            "rollouts": self.rollouts,
            "questions": list(self._questions),
            "images": self.pictures.values,
        }
        notes = list(notes)
        if self.left_out:
            notes.append(
                f"{self.left_out:,} more rollouts of the file are left out here and in the figures."
            )
        parts = {
            "title": html.escape(self.title),
            "facts": html.escape(self.facts()),
            "notes": "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes),
            "plots": "\n".join(self.plots()),
            "css": _asset("page.css"),
            "js": _asset("page.js"),
            "data": json_for_html(data),
        }
        return fill(_asset("page.html"), parts)

    def facts(self) -> str:
        """What the page is about, on one line."""
        scored = [r["mean"] for r in self.rollouts if r["mean"] is not None]
        mean = f", mean p {sum(scored) / len(scored):.3f}" if scored else ""
        return (
            f"{len(self.rollouts):,} rollouts of {len(self._problems):,} problems: {len(scored):,} "
            f"scored{mean}, {len(self.rollouts) - len(scored):,} unscored · model "
            f"{', '.join(sorted(self.models))} · profile {', '.join(sorted(self.profiles))}"
        )

    def plots(self) -> list[str]:
        """The figures that these rollouts have something for."""
        scored = [r for r in self.rollouts if r["p"] is not None]
        found = []
        if scored:
            found += [_step_histogram(scored), _positions(scored)]
        calibration = _calibration(scored)
        if calibration.error is not None:
            found.append(reliability_plot(calibration.bins(), calibration.error))
        curves = self._accuracy.curves()
        if curves:
            shown = {words: curves[rule] for rule, words in SHOWN_RULES.items()}
            found.append(n_curves(shown, self._accuracy.problems))
        return found


def _step_histogram(scored: Sequence[Mapping[str, Any]]) -> str:
    counts = {1: [0] * HISTOGRAM_BINS, 0: [0] * HISTOGRAM_BINS, -1: [0] * HISTOGRAM_BINS}
    with_labels = any("labels" in r for r in scored)
    for rollout in scored:
        labels = rollout.get("labels") or [NEUTRAL] * len(rollout["p"])
        for p, label in zip(rollout["p"], labels, strict=True):
            counts[label][min(HISTOGRAM_BINS - 1, int(p * HISTOGRAM_BINS))] += 1
    if not with_labels:
        return histogram({"steps": counts[0]}, "Step probabilities", "p")
    names = {"label: correct": counts[1], "label: incorrect": counts[-1]}
    return histogram(names, "Step probabilities by label (neutral steps left out)", "p")


def _positions(scored: Sequence[Mapping[str, Any]]) -> str:
    by_position: dict[int, list[float]] = defaultdict(list)
    for rollout in scored:
        for index, p in enumerate(rollout["p"]):
            by_position[index].append(p)
    rows = [by_position[index] for index in sorted(by_position)]
    enough = [row for row in rows if len(row) >= FEWEST_STEPS_AT_A_POSITION] or rows
    return position_plot([sum(row) / len(row) for row in enough], [len(row) for row in enough])


def _calibration(scored: Sequence[Mapping[str, Any]]) -> Calibration:
    found = Calibration()
    for rollout in scored:
        for p, label in zip(rollout["p"], rollout.get("labels", ()), strict=False):
            if label != NEUTRAL:
                found.add(p, correct=label == 1)
    return found


def _asset(name: str) -> str:
    return (resources.files("vrprm_reward.report") / "assets" / name).read_text(encoding="utf-8")


def json_for_html(value: object) -> str:
    """JSON that can stand in a `<script>` element whatever texts are in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Put parts into the places `{{name}}`; what is put in is not looked through again."""
    pieces = template.split("{{")
    found = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        found += [parts[name], rest]
    return "".join(found)
