"""GRPOTrainer with an advantage for every token: TRL's own, weighted by step, or plus the step's.

TRL's loss takes advantages of shape (B, T) from subclasses, so nothing of it is repeated here.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.advantage import ESTIMATORS, prefix_weights, to_tokens
from vrprm_reward.rewards.align import last_tokens
from vrprm_reward.rewards.combine import SOUND_PREFIX, advantage_for, check_fit
from vrprm_trl.reward import ProcessRewardFunction, StepsOfCompletion

_METHOD = "_generate_and_score_completions"


class StepGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """A `GRPOTrainer` whose completions are credited step by step.

    One of `reward_funcs` is a `ProcessRewardFunction` made with `steps=True`. By default
    (`sound_prefix`), what the response earns goes through TRL's baseline and scaling as ever, with
    what other reward functions say, and on each step's tokens the advantage is multiplied by the
    smallest probability of the steps before it. With another rule, only what the end of a response
    earns goes through TRL's baseline; what its steps earn becomes step advantages within the group,
    which are added on the tokens of each step. TRL does not scale these. A completion that could
    not be scored gets no advantage, whatever other reward functions say of it.

    Args:
        step_advantage: a name in `vrprm_reward.rewards.advantage.ESTIMATORS`; None: the one that
            the function's rule is made for.
        step_weight: factor of the step advantages that are added.

    Raises:
        InputError: no such reward function or name, a rule that does not fit it, a factor where
            nothing is added, or tools, whose turns have no steps.
    """

    def __init__(
        self,
        *arguments: Any,
        step_advantage: str | None = None,
        step_weight: float = 1.0,
        **more: Any,
    ) -> None:
        if not callable(getattr(GRPOTrainer, _METHOD, None)):
            raise InputError(
                f"trl {metadata.version('trl')} has no GRPOTrainer.{_METHOD}: 1.16 is known to work"
            )
        if step_advantage is not None and step_advantage not in ESTIMATORS:
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
        self._process_reward = found[0]
        self._step_advantage = step_advantage or advantage_for(found[0].rule)
        check_fit(found[0].rule, self._step_advantage)
        if self._step_advantage == SOUND_PREFIX and step_weight != 1:
            raise InputError(
                f"step_weight is {step_weight!r}, and with step_advantage {SOUND_PREFIX!r} "
                "nothing is added that it could scale: leave it at 1"
            )
        self._step_weight = step_weight

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        own = self._process_reward.take_steps()
        # TRL takes None for 0 as soon as another reward function has a number.
        scored = [[float(not each.reward.masked)] for each in own]
        whole = output["advantages"].unsqueeze(1)
        whole = whole * whole.new_tensor(scored)
        if self._step_advantage == SOUND_PREFIX:
            output["advantages"] = whole * self._on_tokens(own, _weights(own), output)
        else:
            tokens = self._on_tokens(own, self._advantages(own), output)
            output["advantages"] = whole + self._step_weight * tokens
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
        of_steps: Sequence[torch.Tensor | None],
        output: dict[str, Any],
    ) -> torch.Tensor:
        """Numbers of steps and ends on their tokens: float32, (B, T), 0 where there are none."""
        ids, masks = output["completion_ids"], output["completion_mask"]
        found = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
        for row, (each, numbers) in enumerate(zip(own, of_steps, strict=True)):
            length = int(masks[row].sum())
            if numbers is None or length == 0:
                continue
            ends = [length - 1] * len(each.reward.rewards)
            if each.reward.steps:
                written = ids[row, :length].tolist()
                ends = last_tokens(written, self._tokenizer, each.text, each.reward.steps)
            found[row] = to_tokens(numbers.to(ids.device), ends, masks[row])
        return found


def _weights(own: Sequence[StepsOfCompletion]) -> list[torch.Tensor | None]:
    """How much is learnt from each step and the end; None for a completion that is left out."""
    rewards = [each.reward.rewards for each in own]
    return [prefix_weights(torch.tensor(steps)) if steps else None for steps in rewards]
