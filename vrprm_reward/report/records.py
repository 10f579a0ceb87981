"""Output files of the offline jobs -> what a report shows of each rollout."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from vrprm_reward.errors import RowError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields, kind_of
from vrprm_reward.rewards.aggregate import AGGREGATIONS
from vrprm_reward.sampling.best_of_n import Candidates


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
            labels = values.get("step_labels")
            more = {} if labels is None else {"labels": labels, "source": values.get("source")}
            yield {**common, "id": name, **self._score(values, ""), **more}
            return
        for number, candidate in enumerate(values["candidates"]):
            chosen = [rule for rule, at in values["chosen"].items() if at == number]
            more = {
                "chosen": chosen,
                "right": candidate.get("right"),
                "answer": candidate.get("answer"),
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

    def _score(self, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        steps, p = values.get("steps"), values.get("p_correct")
        if not isinstance(steps, list):
            self._refuse(f"{place}steps", f"{kind_of(steps)}: give the output of a scoring job")
        if p is not None and (not isinstance(p, list) or len(p) != len(steps) or not p):
            self._refuse(f"{place}p_correct", "does not have one probability for each step")
        falls = [max(0.0, a - b) for a, b in zip(p or [], (p or [])[1:], strict=False)]
        return {
            "steps": [step["text"] for step in steps],
            "p": None if p is None else [round(x, 4) for x in p],
            "mean": None if p is None else round(sum(p) / len(p), 4),
            "least": None if p is None else round(min(p), 4),
            "drop": round(max(falls), 4) if falls else None,
            "status": values.get("status"),
            "reason": values.get("reason"),
            "detail": values.get("detail"),
            "thinking": values.get("thinking"),
            "flags": values.get("flags") or [],
        }

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


def report_row(fields: Fields, images: ImageSettings) -> ReportRow:  # noqa: ARG001  same for all jobs
    """A row that has been looked at. Raises `RowError`."""
    return ReportRow(fields)
