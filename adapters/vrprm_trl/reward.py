"""The reward function for TRL's GRPOTrainer: process scores and outcome of each completion."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vrprm_reward.background import BackgroundLoop
from vrprm_reward.errors import EngineError, InputError
from vrprm_reward.process_reward import ProcessReward, load_process_reward
from vrprm_reward.rewards.aggregate import Aggregation
from vrprm_reward.rewards.combine import (
    DEFAULT_RULE,
    RewardRule,
    RolloutReward,
    advantage_for,
    outcome_reward,
)
from vrprm_reward.rewards.masked_share import MaskedShare
from vrprm_reward.rewards.metrics import batch_metrics
from vrprm_reward.rewards.outcome import OutcomeFunction, load_outcome
from vrprm_reward.rewards.scalar import scalar_reward, split_outcome, split_reward
from vrprm_reward.types import Problem, Rollout
from vrprm_trl.conversation import PLACEHOLDER, question_and_images, response_text


@dataclass(frozen=True)
class StepsOfCompletion:
    """What the steps of one completion earned, for a trainer with step advantages."""

    text: str
    """The completion's text, which the steps' spans refer to."""

    reward: RolloutReward
    """The rewards of the steps; one without steps for an unscorable response; none if masked."""


class ProcessRewardFunction:
    """A reward function for `GRPOTrainer(reward_funcs=...)`.

    A class and not a closure, so that it pickles. A completion that our side could not score gets
    None, which leaves it out of its group's baseline; one that made itself unscorable gets the
    rule's lowest reward, so that this never pays. Numbers of each batch go to TRL's logger.

    Example:
        >>> from vrprm_trl import ProcessRewardFunction
        >>> reward = ProcessRewardFunction("http://127.0.0.1:8000", outcome="exact")
        >>> reward.__name__
        'process_reward'

    Args:
        reward: a process reward, or a name for `load_process_reward`.
        rule: how process scores and the outcome are combined.
        aggregation: how the probabilities of the steps become one number.
        outcome: how a final answer is checked; see `load_outcome`.
        outcome_seconds: longest time of one such check.
        answer_column: column of the dataset with the reference answer.
        question_column: column with the question; None: the text of the prompt's user messages.
        max_masked_share: largest share of the last 64 completions of this process (of at least 16)
            that may be unscored by our fault.
        steps: for `StepGRPOTrainer`: what the steps earn is kept for the trainer. The number is
            then all that is earned under the combination `sound`, otherwise what the end earns.
        name: what TRL calls it in its logs.

    Raises:
        InputError: a setting cannot be used.
    """

    def __init__(
        self,
        reward: ProcessReward | str,
        *,
        rule: RewardRule = DEFAULT_RULE,
        aggregation: Aggregation = "min",
        outcome: str | OutcomeFunction = "math",
        outcome_seconds: float = 10.0,
        answer_column: str = "answer",
        question_column: str | None = None,
        max_masked_share: float = 0.5,
        steps: bool = False,
        name: str = "process_reward",
    ) -> None:
        if not 0 <= max_masked_share <= 1:
            raise InputError(f"max_masked_share = {max_masked_share} is no share")
        if outcome == "none" and rule.needs_outcome:
            raise InputError(
                f"outcome is 'none', and the combination {rule.combination!r} needs an outcome: "
                'use RewardRule(combination="process"), or another outcome'
            )
        self._reward = load_process_reward(reward) if isinstance(reward, str) else reward
        self.rule = rule
        self._aggregation: Aggregation = aggregation
        self._outcome = load_outcome(outcome, timeout=outcome_seconds)
        self._answers = answer_column
        self._questions = question_column
        self._masked_share = MaskedShare(max_masked_share, "max_masked_share")
        self._loop = BackgroundLoop()
        self._last: list[StepsOfCompletion] = []
        self.steps = steps
        self.__name__ = name

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards of a batch, as TRL calls it; None where there is none.

        Raises:
            InputError: prompts without images, completions with tools or with their thinking taken
                out, or a missing column.
            EngineError: more completions than `max_masked_share` could not be scored.
        """
        started = time.monotonic()
        rollouts = self._rollouts(prompts, completions, columns)
        found = self._loop.run(self._scored(rollouts))
        if log_metric is not None:
            seconds = [time.monotonic() - started]
            prefix = f"rewards/{self.__name__}"
            for name, value in batch_metrics([each for each, _ in found], seconds, prefix).items():
                log_metric(name, value)
        if wrong := self._masked_share.count([each for each, _ in found]):
            raise EngineError(wrong)
        self._last = [
            StepsOfCompletion(rollout.response, each)
            for rollout, (each, _) in zip(rollouts, found, strict=True)
        ]
        return [None if each.masked else number for each, number in found]

    def take_steps(self) -> list[StepsOfCompletion]:
        """What the steps of the last batch earned. Once: a batch is not used twice.

        Raises:
            InputError: there is no such batch, or the function was not made with `steps=True`.
        """
        if not self.steps or not self._last:
            raise InputError(
                "there are no step rewards to take: make the function with steps=True, and pass it "
                "to the trainer in reward_funcs"
            )
        found, self._last = self._last, []
        return found

    async def _scored(self, rollouts: Sequence[Rollout]) -> list[tuple[RolloutReward, float]]:
        checks = [
            self._outcome.acheck(rollout.response, rollout.problem.reference_answer)
            for rollout in rollouts
        ]
        if not self.rule.needs_process:
            outcomes = await asyncio.gather(*checks)
            if self.steps:
                return [split_outcome(outcome, self.rule) for outcome in outcomes]
            wholes = [outcome_reward(outcome, self.rule) for outcome in outcomes]
            return [(whole, whole.total) for whole in wholes]
        scores, outcomes = await asyncio.gather(
            self._reward.ascore(rollouts), asyncio.gather(*checks)
        )
        found = []
        for score, outcome in zip(scores, outcomes, strict=True):
            if self.steps:
                found.append(split_reward(score, outcome, self.rule, advantage_for(self.rule)))
            else:
                whole = scalar_reward(score, outcome, self.rule, self._aggregation)
                found.append((whole, whole.total))
        return found

    def _rollouts(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]
    ) -> list[Rollout]:
        answers = columns.get(self._answers)
        if answers is None:
            if self.rule.needs_outcome:
                raise InputError(
                    f"the dataset has no column {self._answers!r}, and the combination "
                    f"{self.rule.combination!r} needs an outcome: name it with answer_column=, or "
                    'use RewardRule(combination="process")'
                )
            answers = [None] * len(prompts)
        questions = columns.get(self._questions) if self._questions else None
        if self._questions and questions is None:
            raise InputError(f"the dataset has no column {self._questions!r} (question_column)")
        found = []
        for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            question, images = question_and_images(prompt)
            if not images:
                raise InputError(
                    f'row {index} of a batch has no image: give the dataset a column "images" '
                    '(lists of images) or "image"'
                )
            answer = answers[index]
            question = questions[index] if questions else question
            if not isinstance(question, str) or not question.replace(PLACEHOLDER, "").strip():
                where = f"column {self._questions!r}" if questions else "prompt's user messages"
                raise InputError(
                    f"row {index} of a batch has no question ({question!r}) in its {where}: give "
                    "every row a text"
                )
            problem = Problem(
                question=question,
                images=images,
                reference_answer=None if answer is None else str(answer),
            )
            found.append(Rollout(problem=problem, response=response_text(completion)))
        return found
