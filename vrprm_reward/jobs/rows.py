"""Rows of a file -> rollouts.

A row that can be read has

- `question`: text;
- `images`: a path, a `data:` URL or a `file://` URL, or a list of them (also spelt `image`);
- `response`: what the policy wrote, and / or `steps`: a list of texts that stand in it;
- optionally `reference_answer` (text) and `id` (text or a whole number).

Other keys are ignored. Relative paths start from the folder of the file.
"""

from dataclasses import dataclass

from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import Fields, json_object
from vrprm_reward.jobs.keys import problem_key
from vrprm_reward.types import Rollout


@dataclass(frozen=True)
class Row:
    """A row that could be read."""

    line: int
    """1-based line number in the file."""

    id: str | int
    """The row's own id, or its line number where it has none."""

    rollout: Rollout
    """What is to be scored. Image paths are as in the row, not yet resolved."""

    def problem_key(self) -> bytes:
        """16 bytes, equal for rows with the same question and images: candidates of a problem."""
        return problem_key(self.rollout.problem)


def parse_row(raw: bytes, *, line: int, images: ImageSettings) -> Row:
    """One line of a JSONL file as a rollout. Files of images must exist; they are not opened.

    Args:
        raw: the line, in UTF-8.
        line: its 1-based number, for messages and for a row without an id.
        images: from where images may come.

    Raises:
        RowError: the line is no object, or a field is missing, empty, of the wrong type, or does
            not fit the others; has the line and the field.
    """
    return rollout_row(Fields(json_object(raw, line), line), images)


def rollout_row(fields: Fields, images: ImageSettings) -> Row:
    """A row that holds one rollout. Raises `RowError`."""
    problem = fields.problem(images)
    response, steps = fields.response_and_steps()
    rollout = Rollout(problem=problem, response=response, steps=steps)
    return Row(line=fields.line, id=fields.id(), rollout=rollout)
