"""Finished scores, kept for rollouts that come again."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

from vrprm_reward.images import FinalImage
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.types import ProcessScore, Rollout, Step


class FinishedScores:
    """The most recently used scores, keyed by content, profile and checkpoint.

    Args:
        size: how many are kept; 0 keeps none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._scores: OrderedDict[str, ProcessScore] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> ProcessScore | None:
        """The score kept under a key."""
        with self._lock:
            score = self._scores.get(key)
            if score is not None:
                self._scores.move_to_end(key)
            return score

    def put(self, key: str, score: ProcessScore) -> None:
        """Keep a score; the one that was not used for the longest time goes."""
        if self._size == 0 or not score.scored:
            return
        with self._lock:
            self._scores[key] = score
            self._scores.move_to_end(key)
            if len(self._scores) > self._size:
                self._scores.popitem(last=False)

    def __getstate__(self) -> dict[str, int]:
        return {"size": self._size}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["size"])  # type: ignore[misc]


def score_key(
    checkpoint: str,
    profile: Profile,
    rollout: Rollout,
    steps: Sequence[Step],
    images: Sequence[FinalImage],
) -> str:
    """Equal exactly for rollouts that get equal scores: final pixels count, not where they lay."""
    content = {
        "checkpoint": checkpoint,
        "profile": profile.model_dump(mode="json"),
        "question": rollout.problem.question,
        "reference": rollout.problem.reference_answer,
        "response": rollout.response,
        "steps": [(step.start, step.end) for step in steps],
        "images": [image.digest for image in images],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
