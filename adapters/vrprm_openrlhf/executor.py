"""The agent executor: generates as OpenRLHF does, and scores what came out with its images.

It has what a remote reward has not: the images as the policy got them, and the response's token
ids, which say where each step ends.
"""

import asyncio
import base64
import os
from collections.abc import Sequence
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor

from vrprm_openrlhf.errors import MissingHookError
from vrprm_openrlhf.hook import installed
from vrprm_openrlhf.judge import Judge, Judged
from vrprm_openrlhf.settings import PREFIX, Settings
from vrprm_openrlhf.wire import pack
from vrprm_reward.openrlhf_wire import Label, read_label
from vrprm_reward.rewards.align import last_tokens
from vrprm_reward.types import ImageSource, Problem, Rollout

_LONGEST_PATH = 256


class AgentExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]
    """One response per prompt, judged step by step.

    OpenRLHF makes it without arguments; its settings are the variables `VRPRM_OPENRLHF_*`. For
    another process reward, subclass it in a file of your own and pass `judge`.

    Raises:
        InputError: a setting is missing, unknown, or cannot be used.
        MissingHookError: dense rewards are wanted, and the hook is not installed.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        super().__init__(remote_rm_url=None)
        self._settings = Settings.from_environment()
        if self._settings.mode == "dense" and not installed():
            raise MissingHookError(_NO_HOOK)
        self._judge = judge or Judge(self._settings, masks=installed())

    async def execute(
        self,
        prompt: str,
        label: Any,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """Generate a response, score it, and return both as OpenRLHF's executors do.

        Raises:
            LabelError: the label has no question. As all rows of a run are alike, this ends it.
            UnscoredError: see `Judge.ajudge`.
        """
        row = read_label(label)
        output: dict[str, Any] = await super().execute(
            prompt=prompt,
            label=label,
            sampling_params=sampling_params,
            max_length=max_length,
            hf_tokenizer=hf_tokenizer,
            llm_engine=llm_engine,
            images=images,
        )
        ((first, last),) = output["action_ranges"]
        tokenizer = getattr(hf_tokenizer, "tokenizer", hf_tokenizer)
        ids = list(output["observation_tokens"][first:last])
        response: str = tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        judged = await self._judged(row, response, images)
        output["reward"] = judged.scalar
        output["scores"] = judged.filter_score
        output["extra_logs"] = judged.numbers()
        if self._settings.mode == "dense":
            output["extra_logs"] |= await asyncio.to_thread(
                _packed, judged, ids, first, tokenizer, response
            )
        return output

    async def _judged(self, row: Label, response: str, images: Any) -> Judged:
        sources = image_sources(images)
        if not sources:
            return self._judge.unscored(
                "image_missing", "the rollout has no image: pass --data.image_key"
            )
        problem = Problem(question=row.question, images=sources, reference_answer=row.answer)
        return await self._judge.ajudge(Rollout(problem=problem, response=response))


def image_sources(images: Any) -> tuple[ImageSource, ...]:
    """The images of a rollout in the forms that OpenRLHF takes, as those that we take.

    These are paths, URLs, data URLs, bare base64, bytes and PIL images, one or a list of them.
    """
    many = images if isinstance(images, list | tuple) else [images]
    return tuple(_source(image) for image in many if image is not None)


def _source(image: Any) -> ImageSource:
    bare = isinstance(image, str) and len(image) > _LONGEST_PATH and "://" not in image[:16]
    if bare and not image.startswith("data:") and not os.path.exists(image):
        try:
            # With line breaks, as MIME has it, OpenRLHF takes it, too.
            return base64.b64decode(image.replace("\n", "").replace("\r", ""), validate=True)
        except ValueError:
            return str(image)
    found: ImageSource = image
    return found


def _packed(
    judged: Judged, ids: Sequence[int], first: int, tokenizer: Any, response: str
) -> dict[str, Any]:
    """The step rewards, each on the token that completes its step.

    A response that cannot be judged by its own doing has a single reward, on its last token.
    """
    reward = judged.reward
    if not ids:
        return pack([], [], first)
    if reward.steps:
        tokens = last_tokens(ids, tokenizer, response, reward.steps)
    else:
        tokens = [len(ids) - 1] * len(reward.rewards)
    return pack(tokens, reward.rewards, first)


_NO_HOOK = f"""\
{PREFIX}MODE is dense, and vrprm_openrlhf.install did not run in this worker: the trainer would \
not read the step rewards. Launch the job with one of
  ray job submit --runtime-env-json '{{"worker_process_setup_hook": "vrprm_openrlhf.install"}}' \
-- python3 -m openrlhf.cli.train_ppo_ray ...
  RAY_RUNTIME_ENV_HOOK=vrprm_openrlhf.runtime_env_hook python3 -m openrlhf.cli.train_ppo_ray ...
or set {PREFIX}MODE=scalar"""
