"""Output files of the offline jobs -> what a report shows of each rollout."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeGuard

from vrprm_reward.errors import RowError
from vrprm_reward.evaluation.metrics import CORRECT, INCORRECT, NEUTRAL
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields, kind_of
from vrprm_reward.rewards.aggregate import AGGREGATIONS
from vrprm_reward.sampling.best_of_n import Candidates

REMEDY = "give the output of a scoring job as it was written"


class ReportRow:
    """A row of an output file of `score`, `evaluate` or `best-of-n`."""

    def __init__(self, fields: Fields) -> None:
        self.line = fields.line
        self.values = fields.values
        self._fields = fields
        if "trajectories" in self.values:
            self._refuse("trajectories", "solutions of `sample` have no report: score them first")
        if "candidates" not in self.values and "status" not in self.values:
            self._refuse(
                "status",
                "missing: give the output of vrprm-reward score, evaluate or best-of-n, not its "
                "input",
            )
        if "candidates" in self.values:
            self._check_choice()

    def problem_key(self) -> bytes:
        """Rows of a report are never divided by problem."""
        return self.line.to_bytes(8)

    def rollouts(self) -> Iterator[dict[str, Any]]:
        """Of each rollout, what the page shows, with `question` and `images` as texts.

        Raises:
            RowError: a field is missing or of another kind.
        """
        values = self.values
        name = str(values.get("id", self.line))
        common = {"question": self._text("question"), "images": self._images()}
        if "candidates" not in values:
            score = self._score(values, "")
            yield {**common, "id": name, **score, **self._labels(score)}
            return
        for number, candidate in enumerate(values["candidates"]):
            chosen = [rule for rule, at in values["chosen"].items() if at == number]
            more = {
                "chosen": chosen,
                "right": candidate["right"],
                "answer": self._text_or_none(candidate, "answer", f"candidates[{number}]."),
            }
            score = self._score(candidate, f"candidates[{number}].")
            yield {**common, "id": f"{name} [{number + 1}]", **score, **more}

    def candidates(self) -> tuple[Candidates, list[bool | None]] | None:
        """The candidates of a row of best-of-n, and which of them are right."""
        found = self.values.get("candidates")
        if found is None:
            return None
        p_correct = [None if c["p_correct"] is None else tuple(c["p_correct"]) for c in found]
        votes = tuple(candidate["vote"] for candidate in found)
        weight = self.values.get("weight", "mean")
        return Candidates(tuple(p_correct), votes, weight), [each["right"] for each in found]

    def _check_choice(self) -> None:
        """Refuse what `best-of-n` did not write."""
        chosen = self.values.get("chosen")
        if not isinstance(chosen, dict):
            what = "missing" if chosen is None else kind_of(chosen)
            self._refuse(
                "chosen", f"{what}: give the output of vrprm-reward best-of-n, not its input"
            )
        if (weight := self.values.get("weight", "mean")) not in AGGREGATIONS:
            self._refuse("weight", f"{weight!r}: it is one of {', '.join(AGGREGATIONS)}")
        candidates = self.values["candidates"]
        if not isinstance(candidates, list) or not candidates:
            self._refuse("candidates", f"{kind_of(candidates)}: give a list of scored candidates")
        for number, candidate in enumerate(candidates):
            for name in ("p_correct", "vote", "right"):
                if not isinstance(candidate, dict) or name not in candidate:
                    place = f"candidates[{number}].{name}"
                    self._refuse(place, "missing: give the output of vrprm-reward best-of-n")
            if not _is_number(vote := candidate["vote"]) and vote is not None:
                place = f"candidates[{number}].vote"
                self._refuse(place, f"{_shown(vote)}: it is the number of an answer, or null")
            if not isinstance(right := candidate["right"], bool | None):
                self._refuse(
                    f"candidates[{number}].right", f"{_shown(right)}: it is true, false or null"
                )

    def _score(self, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        texts = self._steps(values.get("steps"), f"{place}steps")
        p = self._probabilities(values.get("p_correct"), len(texts), f"{place}p_correct")
        flags = values.get("flags") or []
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            self._refuse(f"{place}flags", f"not a list of texts: {REMEDY}")
        falls = [max(0.0, a - b) for a, b in zip(p or [], (p or [])[1:], strict=False)]
        return {
            "steps": texts,
            "p": None if p is None else [round(x, 4) for x in p],
            "mean": None if p is None else round(sum(p) / len(p), 4),
            "least": None if p is None else round(min(p), 4),
            "drop": round(max(falls), 4) if falls else None,
            "flags": flags,
            **{
                name: self._text_or_none(values, name, place)
                for name in ("status", "reason", "detail", "thinking")
            },
        }

    def _steps(self, steps: object, place: str) -> list[str]:
        if not isinstance(steps, list):
            self._refuse(place, f"{kind_of(steps)}: {REMEDY}")
        texts = []
        for number, step in enumerate(steps):
            if not isinstance(step, dict):
                self._refuse(f"{place}[{number}]", f"{kind_of(step)}, not an object: {REMEDY}")
            if not isinstance(text := step.get("text"), str):
                self._refuse(f"{place}[{number}].text", f"{kind_of(text)}, not a text: {REMEDY}")
            texts.append(text)
        return texts

    def _probabilities(self, p: object, steps: int, place: str) -> list[float] | None:
        if p is None:
            return None
        if not isinstance(p, list) or len(p) != steps or not p:
            self._refuse(place, f"does not have one probability for each step: {REMEDY}")
        for number, value in enumerate(p):
            if not _is_number(value) or not 0 <= value <= 1:
                self._refuse(
                    f"{place}[{number}]", f"{_shown(value)} is no number from 0 to 1: {REMEDY}"
                )
        return p

    def _labels(self, score: Mapping[str, Any]) -> dict[str, Any]:
        """The labels of the steps and where they come from, in rows that have them."""
        labels = self.values.get("step_labels")
        if labels is None:
            return {}
        if not isinstance(labels, list):
            self._refuse("step_labels", f"{kind_of(labels)}, not a list: {REMEDY}")
        # What is unscored need not have its steps.
        if score["p"] is not None and len(labels) != len(score["p"]):
            self._refuse("step_labels", f"does not have one label for each step: {REMEDY}")
        for number, label in enumerate(labels):
            if not _is_number(label) or label not in (CORRECT, NEUTRAL, INCORRECT):
                self._refuse(
                    f"step_labels[{number}]", f"{_shown(label)}: a label is 1, 0 (neutral) or -1"
                )
        return {
            "labels": [int(label) for label in labels],
            "source": self._text_or_none(self.values, "source", ""),
        }

    def _text_or_none(self, values: Mapping[str, Any], field: str, place: str) -> str | None:
        value = values.get(field)
        if not isinstance(value, str | None):
            self._refuse(f"{place}{field}", f"{_shown(value)}, not a text: {REMEDY}")
        return value

    def _text(self, field: str) -> str:
        value = self.values.get(field)
        if not isinstance(value, str):
            self._refuse(field, f"{kind_of(value)}: score the rows again with this version")
        return value

    def _images(self) -> list[str]:
        value = self.values.get("images")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse("images", f"{kind_of(value)}: score the rows again with this version")
        return value

    def _refuse(self, field: str, message: str) -> NoReturn:
        raise RowError(message, line=self.line, field=field)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value for messages: numbers as they are, of others what they are."""
    return repr(value) if _is_number(value) else kind_of(value)


def report_row(fields: Fields, images: ImageSettings) -> ReportRow:  # noqa: ARG001  same for all jobs
    """A row that has been looked at. Raises `RowError`."""
    return ReportRow(fields)
