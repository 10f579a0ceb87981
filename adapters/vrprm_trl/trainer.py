"""GRPOTrainer with an advantage for every token: TRL's own plus that of the token's step.

TRL's loss takes advantages of shape (B, T) from subclasses, so nothing of it is repeated here.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.advantage import ESTIMATORS, to_tokens
from vrprm_reward.rewards.align import last_tokens
from vrprm_reward.rewards.combine import DEFAULT_ADVANTAGE, check_fit
from vrprm_trl.reward import ProcessRewardFunction, StepsOfCompletion

_METHOD = "_generate_and_score_completions"


class StepGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """A `GRPOTrainer` whose completions are credited step by step.

    One of `reward_funcs` is a `ProcessRewardFunction` made with `steps=True`. What the whole
    response earns goes through TRL's baseline and scaling as ever; what its steps earn becomes step
    advantages within the group, which are added on the tokens of each step. TRL does not scale
    these. A completion that could not be scored gets no advantage, whatever other reward functions
    say of it.

    Args:
        step_advantage: a name in `vrprm_reward.rewards.advantage.ESTIMATORS`.
        step_weight: factor of the step advantages.

    Raises:
        InputError: no such reward function or name, a credit that does not fit it, or tools,
            whose turns have no steps.
    """

    def __init__(
        self,
        *arguments: Any,
        step_advantage: str = DEFAULT_ADVANTAGE,
        step_weight: float = 1.0,
        **more: Any,
    ) -> None:
        if not callable(getattr(GRPOTrainer, _METHOD, None)):
            raise InputError(
                f"trl {metadata.version('trl')} has no GRPOTrainer.{_METHOD}: 1.16 is known to work"
            )
        if step_advantage not in ESTIMATORS:
            raise InputError(
                f"unknown step_advantage {step_advantage!r}; choose one of {', '.join(ESTIMATORS)}"
            )
        super().__init__(*arguments, **more)
        found = [
            each
            for each in self.reward_funcs
            if isinstance(each, ProcessRewardFunction) and each.steps
        ]
        if len(found) != 1:
            raise InputError(
                f"reward_funcs has {len(found)} functions ProcessRewardFunction(..., steps=True), "
                "and step advantages need exactly one"
            )
        if self.tools:
            raise InputError("step advantages are for single responses: leave tools out")
        check_fit(found[0].rule, step_advantage)
        self._process_reward = found[0]
        self._step_advantage = step_advantage
        self._step_weight = step_weight

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        own = self._process_reward.take_steps()
        tokens = self._on_tokens(own, self._advantages(own), output)
        # TRL takes None for 0 as soon as another reward function has a number.
        scored = [[float(not each.reward.masked)] for each in own]
        whole = output["advantages"].unsqueeze(1)
        output["advantages"] = whole * whole.new_tensor(scored) + self._step_weight * tokens
        return output

    def _advantages(self, own: Sequence[StepsOfCompletion]) -> list[torch.Tensor | None]:
        """Step advantages of this process's completions; groups may lie across processes."""
        every = gather_object([list(each.reward.rewards) for each in own])
        size = self.num_generations if self.model.training else self.num_generations_eval
        rewards = [torch.tensor(each) if each else None for each in every]
        found = ESTIMATORS[self._step_advantage](rewards, [i // size for i in range(len(every))])
        first = self.accelerator.process_index * len(own)
        return list(found[first : first + len(own)])

    def _on_tokens(
        self,
        own: Sequence[StepsOfCompletion],
        advantages: Sequence[torch.Tensor | None],
        output: dict[str, Any],
    ) -> torch.Tensor:
        """The step advantages on the tokens: float32 of shape (B, T), 0 where there are none."""
        ids, masks = output["completion_ids"], output["completion_mask"]
        found = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
        for row, (each, advantage) in enumerate(zip(own, advantages, strict=True)):
            length = int(masks[row].sum())
            if advantage is None or length == 0:
                continue
            ends = [length - 1] * len(each.reward.rewards)
            if each.reward.steps:
                written = ids[row, :length].tolist()
                ends = last_tokens(written, self._tokenizer, each.text, each.reward.steps)
            found[row] = to_tokens(advantage.to(ids.device), ends, masks[row])
        return found
