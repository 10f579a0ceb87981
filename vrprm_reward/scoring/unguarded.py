"""A scorer that shows untrusted text as it was written: only to measure what neutralising is worth.

Scores of this scorer can be forged by whoever wrote the response. Nothing but the robustness suite
may import this module (a contract of import-linter), and no setting, option or profile leads here.
"""

from functools import partial
from typing import Self

from vrprm_reward.engines.engine import Engine
from vrprm_reward.scoring.scorer import VRPRMScorer
from vrprm_reward.scoring.untrusted import ShownText


class AsWritten:
    """Changes nothing."""

    def text(self, text: str) -> str:
        """The text."""
        return text

    def step(self, index: int, text: str) -> str:  # noqa: ARG002  as the scorer calls it
        """The text."""
        return text

    def generated(self, text: str) -> str:
        """The text."""
        return text


class UnguardedScorer(VRPRMScorer):
    """As the scorer it is made from, and with its engine, but without neutralising anything."""

    @classmethod
    def beside(cls, scorer: VRPRMScorer) -> Self:
        """One that asks the engine of `scorer`, which stays the owner of it."""
        return cls(
            partial(_engine_of, scorer),
            scorer.profile,
            steps=scorer._steps,
            images=scorer._images,
            schedule=scorer._schedule,
        )

    def close(self) -> None:
        """End what is its own. The engine is not."""
        with self._engine_lock:
            self._engine = None
        self._loop.close()

    def _shown(self, engine: Engine) -> ShownText:  # noqa: ARG002  the engine's tokens pass
        return AsWritten()


def _engine_of(scorer: VRPRMScorer) -> Engine:
    return scorer.engine
