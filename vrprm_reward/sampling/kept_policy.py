"""A policy that is asked for nothing twice, whatever happens in between."""

import json

from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.keys import digest, image_digest
from vrprm_reward.sampling.policy import Continuation, Policy
from vrprm_reward.types import Problem


class KeptPolicy:
    """Answers from a journal what it holds, and asks a policy for the rest.

    Args:
        policy: who is asked.
        journal: where proposals are kept.
        images: where relative image paths start.
    """

    def __init__(self, policy: Policy, journal: Journal, images: ImageSettings) -> None:
        self._policy = policy
        self._journal = journal
        self._images = images

    @property
    def identity(self) -> str:
        """That of the policy."""
        return self._policy.identity

    async def propose(
        self, problem: Problem, prefix: tuple[str, ...], n: int, *, seed: int
    ) -> list[Continuation]:
        """As the policy proposed, or proposes now."""
        images = [image_digest(image, self._images) for image in problem.images]
        key = digest(
            ["policy", self._policy.identity, problem.question, images, list(prefix), n, seed]
        )
        known = self._journal.get([key]).get(key)
        if known is not None:
            return [Continuation(*values) for values in json.loads(known)]
        found = list(await self._policy.propose(problem, prefix, n, seed=seed))
        self._journal.put({key: json.dumps([[p.text, p.finished, p.tokens] for p in found])})
        return found
