"""What one rollout carries through verl, in the form that verl's batches take.

verl makes an array of every value of `reward_extra_info` and takes the names from the first row.
So every row has the same names, failed ones included; numbers stay numbers (they show up in
validation), and everything of varying length is in one JSON text.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vrprm_reward.rewards.align import place
from vrprm_reward.rewards.combine import RolloutReward

ROW = "vrprm_row"
"""Name of the JSON text in `reward_extra_info`."""

VISIBLE_ZERO = 1e-30
"""What is written for a scored step that earns exactly 0, so that the step can be seen: estimators
get nothing but the reward tensor, in which a masked row is all zeros."""


@dataclass(frozen=True)
class Row:
    """One rollout's rewards and the tokens they belong to."""

    reward: RolloutReward
    """What was earned; its steps' texts are not carried."""

    tokens: tuple[int, ...]
    """Index of a response token for each of `reward.rewards`."""

    check: int
    """Checksum of the response's token ids: rewards only go onto the tokens that were judged."""

    seconds: float
    """How long scoring took."""

    validation: bool = False
    """Whether it was rewarded as a validation row."""

    last: int | None = None
    """Index of the policy's last token, on which stands what the end earns."""

    def extra_info(self) -> dict[str, Any]:
        """verl's `reward_extra_info`: the same names on every row."""
        reward = self.reward
        return {
            "score": reward.total,
            # verl validates by `acc`. An unknown outcome is not a wrong one: see the next entry.
            "acc": float(reward.outcome is not None and reward.outcome >= 0.5),
            "vrprm_outcome_known": float(reward.outcome is not None),
            "vrprm_masked": float(reward.masked),
            "vrprm_unscorable": float(reward.status == "unscored_response"),
            "vrprm_steps": float(len(reward.p_correct)),
            "vrprm_seconds": self.seconds,
            ROW: self.to_json(),
        }

    def to_json(self) -> str:
        """The row as a text."""
        reward = self.reward
        return json.dumps(
            {
                "status": reward.status,
                "tokens": self.tokens,
                "rewards": reward.rewards,
                "end": reward.end,
                "last": self.last,
                "p_correct": reward.p_correct,
                "outcome": reward.outcome,
                "reason": reward.reason,
                "check": self.check,
                "seconds": round(self.seconds, 4),
                "validation": self.validation,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Row":
        """The row that `to_json` wrote."""
        found = json.loads(text)
        reward = RolloutReward(
            status=found["status"],
            steps=(),
            rewards=tuple(found["rewards"]),
            p_correct=tuple(found["p_correct"]),
            outcome=found["outcome"],
            reason=found["reason"],
            end=found["end"],
        )
        return cls(
            reward,
            tuple(found["tokens"]),
            found["check"],
            found["seconds"],
            found["validation"],
            found["last"],
        )

    def dense(self, length: int) -> torch.Tensor:
        """Token-level rewards: float32 of shape (length,), all zeros for a masked row."""
        rewards, tokens = self.reward.rewards, self.tokens
        if self.last is not None and rewards:
            rewards, tokens = (*rewards, self.reward.end), (*tokens, self.last)
        return place(rewards, tokens, length, visible_zero=VISIBLE_ZERO)

    @property
    def scalar(self) -> float:
        """The total, for where verl puts it onto the last token by itself; 0 for a masked row only.

        A row of zeros would be taken for a masked one.
        """
        return 0.0 if self.reward.masked else self.reward.total or VISIBLE_ZERO

    def belongs_to(self, ids: Sequence[int]) -> bool:
        """Whether these are the token ids that were judged."""
        return self.check == checksum(ids)


def row_in(extra_info: Mapping[str, Any] | None) -> Row | None:
    """The row in a `reward_extra_info`; None when another reward manager wrote it."""
    text = (extra_info or {}).get(ROW)
    return None if text is None else Row.from_json(str(text))


def checksum(ids: Sequence[int]) -> int:
    """CRC-32 of token ids."""
    return zlib.crc32(torch.as_tensor(ids, dtype=torch.int64).numpy().tobytes())


class DenseScore(float):
    """A scalar reward that brings its row along, for verl's colocated path.

    There, only the list of scores reaches the hook that writes the reward tensor.
    """

    row: Row

    def __new__(cls, row: Row) -> "DenseScore":
        """The row's total."""
        found = super().__new__(cls, row.reward.total)
        found.row = row
        return found

    def __reduce__(self) -> tuple[type["DenseScore"], tuple[Row]]:
        return DenseScore, (self.row,)
