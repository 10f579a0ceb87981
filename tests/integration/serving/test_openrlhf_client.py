"""OpenRLHF's own remote reward client gets its rewards from the running server."""

import asyncio
import base64
import io
import json
from contextlib import closing
from dataclasses import dataclass, field
from statistics import fmean
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, Qwen3VLProcessor, Qwen3VLVideoProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.integration.processes import vrprm_serve
from vrprm_reward import load_process_reward
from vrprm_reward.process_reward import DEMO_FOLDER
from vrprm_reward.types import Rollout

PROMPT = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
LIMIT = 600.0


@dataclass
class Policy:
    """Stands in for OpenRLHF's own vLLM: answers a prompt with what it is told."""

    response: str
    tokenizer: object
    max_tokens: int | None = None
    logprobs: int | None = None
    prompts: list = field(default_factory=list)

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        self.prompts.append(prompt_token_ids)
        ids = self.tokenizer(self.response + "<|im_end|>", add_special_tokens=False)["input_ids"]
        return SimpleNamespace(
            outputs=[SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)]
        )


@pytest.fixture(scope="module")
def processor():
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    images = Qwen2VLImageProcessorPil.from_pretrained(DEMO_FOLDER)
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor())


def png_url(image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def executed(urls, processor, rollouts, *, labels_as_text=False):
    """What OpenRLHF makes of the rollouts, all at once."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor = SingleTurnAgentExecutor(remote_rm_url=urls)

    async def one(rollout):
        (image,) = rollout.problem.images
        question = rollout.problem.question
        label = {"question": question, "images": [png_url(image)], "answer": "3"}
        policy = Policy(rollout.response, processor.tokenizer)
        output = await executor.execute(
            prompt=PROMPT.format(question=question),
            label=json.dumps(label) if labels_as_text else label,
            sampling_params=policy,
            max_length=4096,
            hf_tokenizer=processor,
            llm_engine=policy,
            images=[image],
        )
        pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        assert policy.prompts[0].count(pad) > 1  # the image's token was expanded
        return output

    async def everything():
        return await asyncio.gather(*(one(rollout) for rollout in rollouts))

    return asyncio.run(asyncio.wait_for(everything(), LIMIT))


def mean_scores(url, rollouts):
    with closing(load_process_reward(url)) as reward:
        return [fmean(score.p_correct) for score in reward.score(rollouts)]


@pytest.mark.parametrize("labels_as_text", [False, True])
def test_every_sample_gets_the_mean_of_its_steps(
    reward_server, processor, world_rollouts, labels_as_text
):
    # What comes back from token ids is what the server scores.
    written = [
        rollout.model_copy(update={"response": processor.tokenizer.decode(
            processor.tokenizer(rollout.response)["input_ids"])})
        for rollout in world_rollouts
    ]  # fmt: skip
    wanted = mean_scores(reward_server.url, written)
    outputs = executed(
        [f"{reward_server.url}/get_reward"],
        processor,
        world_rollouts,
        labels_as_text=labels_as_text,
    )
    rewards = [output["reward"] for output in outputs]
    assert [reward for (reward,) in rewards] == pytest.approx(wanted, abs=1e-4)
    assert [output["scores"] for output in outputs] == rewards
    assert {tuple(output["extra_logs"]) for output in outputs} == {
        ("vrprm_unscored", "vrprm_unscored_ours", "vrprm_mean_p", "vrprm_min_p", "vrprm_steps")
    }
    assert all(output["extra_logs"]["vrprm_unscored"] == [0.0] for output in outputs)


def test_a_sample_that_cannot_be_scored_has_the_unscored_reward_and_never_none(
    reward_server, processor, world_rollouts
):
    problem = world_rollouts[0].problem
    outputs = executed(
        f"{reward_server.url}/get_reward",
        processor,
        [world_rollouts[0], Rollout(problem=problem, response=" ")],
    )
    assert outputs[0]["extra_logs"]["vrprm_unscored"] == [0.0]
    assert outputs[1]["reward"] == [-1.0]
    assert outputs[1]["extra_logs"]["vrprm_unscored"] == [1.0]
    assert set(outputs[0]["extra_logs"]) == set(outputs[1]["extra_logs"])


def test_a_fleet_of_two_scores_through_vllm_with_the_token_in_the_url(
    vllm_server, processor, world_rollouts, tmp_path
):
    token = "a-good-token-in-the-url"
    options = ("--upstream", vllm_server.url, "--profile", "demo", "--unscored-reward", "0")
    with (
        vrprm_serve(tmp_path, *options, token=token) as one,
        vrprm_serve(tmp_path, *options, token=token) as two,
    ):
        outputs = executed(
            [f"{server.url}/get_reward?token={token}" for server in (one, two)],
            processor,
            world_rollouts,
        )
        assert all(output["extra_logs"]["vrprm_unscored"] == [0.0] for output in outputs)
        assert token not in one.text + two.text
