"""A process reward that scores nothing twice, whatever happens in between."""

import json
import time
from collections.abc import Sequence

from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.keys import rollout_key
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.types import ProcessScore, Rollout


class KeptReward:
    """Answers from a journal what it holds, and asks a process reward for the rest.

    A score is found again by what was scored (question, contents of images, response, steps) and
    who was asked, never by its place in a file. A rollout that was unscored by our own fault
    keeps that status for the rest of the job and is tried again when the job is started again.

    Args:
        reward: who is asked.
        journal: where scores are kept.
        images: where relative image paths start.
        asker: names the model, the profile and all else that decides a score.
    """

    def __init__(
        self, reward: ProcessReward, journal: Journal, images: ImageSettings, asker: str
    ) -> None:
        self._reward = reward
        self._journal = journal
        self._images = images
        self._asker = asker
        self.computed = 0
        """Rollouts that the process reward was asked for."""
        self.seconds = 0.0
        """How long it took over them."""

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Scores in the order of the rollouts."""
        keys, missing, known = self._look_up(rollouts)
        if missing:
            began = time.monotonic()
            scores = self._reward.score(list(missing.values()))
            self._keep(missing, scores, known, time.monotonic() - began)
        return [known[key] for key in keys]

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """As `score`, for coroutines."""
        keys, missing, known = self._look_up(rollouts)
        if missing:
            began = time.monotonic()
            scores = await self._reward.ascore(list(missing.values()))
            self._keep(missing, scores, known, time.monotonic() - began)
        return [known[key] for key in keys]

    def _look_up(
        self, rollouts: Sequence[Rollout]
    ) -> tuple[list[bytes], dict[bytes, Rollout], dict[bytes, ProcessScore]]:
        keys = [rollout_key(rollout, self._images, self._asker) for rollout in rollouts]
        texts = self._journal.get(list(dict.fromkeys(keys)))
        known = {key: ProcessScore.model_validate(json.loads(t)) for key, t in texts.items()}
        missing = {key: r for key, r in zip(keys, rollouts, strict=True) if key not in known}
        return keys, missing, known

    def _keep(
        self,
        missing: dict[bytes, Rollout],
        scores: Sequence[ProcessScore],
        known: dict[bytes, ProcessScore],
        seconds: float,
    ) -> None:
        new = dict(zip(missing, scores, strict=True))
        ours = [key for key, score in new.items() if score.status == "unscored_ours"]
        # By json, which unlike pydantic can write half a surrogate pair of a model's thinking.
        texts = {key: json.dumps(score.model_dump(mode="python")) for key, score in new.items()}
        self._journal.put(texts, temporary=ours)
        known.update(new)
        self.computed += len(new)
        self.seconds += seconds
