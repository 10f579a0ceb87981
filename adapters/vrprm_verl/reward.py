"""The reward manager: what verl's reward loop calls for every rollout.

    reward.reward_manager.name=vrprm +reward.vrprm.url=http://host:port

verl calls it in CPU workers as soon as a rollout is finished, while others are still being
generated. Everything happens in an event loop in a thread of its own, so that verl's is never
held up by decoding, by images, or by large requests.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from vrprm_reward.background import BackgroundLoop
from vrprm_reward.rewards.combine import check_fit
from vrprm_verl.estimators import PREFIX
from vrprm_verl.judge import Judge, Sample, load_reward
from vrprm_verl.prompt import note_of
from vrprm_verl.row import DenseScore
from vrprm_verl.settings import reward_settings

MASK = "vrprm_response_mask"
"""Extra field by which the agent loops of this package say which tokens the policy wrote."""


@register("vrprm")
class VRPRMRewardManager(RewardManagerBase):  # type: ignore[misc]  # verl is untyped
    """Rewards rollouts by the steps that VRPRM judges, and by their outcome.

    Args:
        config: the whole configuration; the settings are `reward.vrprm`.
        tokenizer: the policy's.
        compute_score: verl's reward function, for `outcome=custom_reward_function`.
        reward_router_address: `host:port` of verl's own reward-model servers.
        reward_model_tokenizer: not needed; every text is tokenised where the model is.

    Raises:
        InputError: a setting is wrong or does not fit another, or nobody is named who could score.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,  # noqa: ARG002
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings = reward_settings(config.reward.get("vrprm"))
        check_fit(settings, str(estimator_of(config)).removeprefix(PREFIX))
        reward = load_reward(settings, reward_router_address)
        self._judge = Judge(settings, tokenizer, reward, compute_score)
        self._thread = BackgroundLoop()
        self._colocated = is_colocated(config)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score the last output of a trajectory: `reward_score` and `reward_extra_info`."""
        row = await asyncio.wrap_future(self._thread.submit(self._row(data)))
        score = DenseScore(row) if self._colocated else row.scalar
        return {"reward_score": score, "reward_extra_info": row.extra_info()}

    @classmethod
    def assemble_rm_scores(cls, data: DataProto, scores: Sequence[float]) -> torch.Tensor:
        """The reward tensor (bs, response_len) of the colocated path, each reward on its token."""
        width = data.batch["responses"].shape[-1]
        rows = []
        for score in scores:
            if not isinstance(score, DenseScore):
                raise TypeError(
                    f"a score is a {type(score).__name__} and not one of this manager: scores of "
                    "several managers cannot be put into one batch"
                )
            rows.append(score.row.dense(width))
        return torch.stack(rows)

    async def _row(self, data: DataProto) -> Any:
        return await self._judge.row(_sample(data))


def estimator_of(config: Any) -> str | None:
    """Name of the run's advantage estimator; None where the configuration has none."""
    algorithm = config.get("algorithm")
    return None if algorithm is None else algorithm.get("adv_estimator")


def is_colocated(config: Any) -> bool:
    """Whether verl's own reward model shares its GPUs with the policy and is asked in batches."""
    reward_model = config.reward.reward_model
    return bool(reward_model.enable and not reward_model.enable_resource_pool)


def _sample(data: DataProto) -> Sample:
    item = data[-1]
    ids = item.batch["responses"]
    fields = item.non_tensor_batch
    count = fields.get("response_len")
    if count is None:
        count = item.batch["attention_mask"][-ids.shape[-1] :].sum()
    count = int(count)
    messages: Sequence[Mapping[str, Any]] = list(fields["raw_prompt"])
    mask = item.batch.get("response_mask")
    if mask is None:
        mask = (fields.get("tool_extra_fields") or {}).get(MASK)
    return Sample(
        ids=ids[:count].tolist(),
        messages=messages,
        mask=None if mask is None else [int(value) for value in mask[:count]],
        extra_info=fields.get("extra_info") or note_of(messages).get("extra_info", {}),
        reward_model=fields.get("reward_model"),
        data_source=fields.get("data_source"),
    )
