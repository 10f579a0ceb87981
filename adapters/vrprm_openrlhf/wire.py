"""How the rewards of a rollout's steps travel from the rollout workers to the trainer.

OpenRLHF has room for one number per rollout (`reward`), and for extra numbers to be logged
(`extra_logs`). A list in `extra_logs` survives as a row of a padded tensor, and nothing else with a
length does; so the step rewards go there, sparsely, and the trainer's hook takes them out again
before they reach the logger.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from vrprm_openrlhf.errors import StepRewardsError

POSITIONS, VALUES, COUNT = "vrprm_pos", "vrprm_val", "vrprm_n"
"""Keys of `extra_logs`: where the rewards stand, what they are, how many there are."""

MASKED = "vrprm_unscored_ours"
"""Key of `extra_logs`: 1 for a rollout that is not to be learnt from."""


class StepRow(NamedTuple):
    """The step rewards of one rollout."""

    positions: torch.Tensor
    """int64 of shape (K,): indices into the rollout's action mask, never decreasing."""

    values: torch.Tensor
    """float32 of shape (K,)."""


def pack(tokens: Sequence[int], values: Sequence[float], first: int) -> dict[str, Any]:
    """The entries of `extra_logs` for one rollout.

    Args:
        tokens: for each reward, the index of its token in the response.
        values: the rewards, as many.
        first: index of the response's first token in the whole sequence. An action mask leaves the
            sequence's first token out, so token t stands at t - 1 in it.
    """
    return {
        POSITIONS: [first + token - 1 for token in tokens],
        VALUES: [float(value) for value in values],
        COUNT: float(len(values)),
    }


def unpack(info: dict[str, Any], action_mask: torch.Tensor) -> list[StepRow] | None:
    """Take the step rewards of a micro batch out of its `info`; None when there are none.

    Args:
        info: tensors with a row for each rollout; the three keys are removed.
        action_mask: shape (B, A).

    Raises:
        StepRewardsError: some keys or rows are missing, or a reward stands where the policy wrote
            nothing.
    """
    found = {key: info.pop(key) for key in (POSITIONS, VALUES, COUNT) if key in info}
    if not found:
        return None
    size = len(action_mask)
    if len(found) < 3 or any(len(value) != size for value in found.values()):
        shapes = {key: tuple(value.shape) for key, value in found.items()}
        raise StepRewardsError(
            f"a micro batch of {size} rollouts has the step rewards {shapes}: every rollout must "
            "have all three, so one executor has to make all of them"
        )
    rows = []
    for index in range(size):
        count = int(found[COUNT][index])
        positions = found[POSITIONS][index][:count].long()
        row = StepRow(positions, found[VALUES][index][:count].float())
        outside = len(positions) and (
            int(positions.min()) < 0
            or int(positions.max()) >= action_mask.shape[1]
            or not bool(action_mask[index][positions].all())
        )
        if len(positions) != count or len(row.values) != count or outside:
            raise StepRewardsError(
                f"rollout {index} of a micro batch has {count} step rewards at "
                f"{positions.tolist()}, which are not all tokens of its response: it was cut after "
                "it had been scored (raise --data.max_len), or another executor changed it"
            )
        rows.append(row)
    return rows


def unpack_masked(info: dict[str, Any], size: int) -> torch.Tensor:
    """Which rollouts of a micro batch are not to be learnt from: bool of shape (B,)."""
    masked = info.get(MASKED)
    if masked is None:
        return torch.zeros(size, dtype=torch.bool)
    if masked.numel() != size:
        raise StepRewardsError(
            f"{MASKED} has {masked.numel()} values for {size} rollouts: some rollouts of this run "
            "come from another executor or server"
        )
    flags: torch.Tensor = masked.reshape(-1) > 0.5
    return flags
