"""A reward server before vLLM that is told to end, and vLLM servers that are started wrongly.

A replica that dies: `test_examples.py`.
"""

import asyncio
import io
import signal
from contextlib import closing

import httpx2
import pytest

from tests.integration.processes import vllm, vrprm_serve
from tests.server.doubles import data_url
from tests.server.test_upstream import until_ready
from vrprm_reward import load_process_reward
from vrprm_reward.demo.evaluate import held_out, rollout_of
from vrprm_reward.engines.openai.errors import LogprobsMissingError, TemplateRefusedError
from vrprm_reward.engines.openai.options import OpenAIOptions

LIMIT = 600.0
STRIPS_THINKING = """\
{%- for message in messages %}{%- if message.content is string %}{%- set text = message.content %}
{%- else %}{%- set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}
{%- endif %}{%- if message.role == 'assistant' %}{%- set text = text.split('</think>')[-1] %}{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + text + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""  # noqa: E501


@pytest.fixture(scope="module")
def rollouts():
    return [rollout_of(example) for example in held_out(31, seed=9)]


def test_sigterm_before_vllm_loses_nothing_that_was_let_in(vllm_server, rollouts, tmp_path):
    def body(rollout):
        (image,) = rollout.problem.images
        return {
            "question": rollout.problem.question,
            "images": [data_url(png(image))],
            "response": rollout.response,
        }

    async def posted(server):
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=server.url, timeout=LIMIT, limits=limits) as client:
            await until_ready(client)

            async def post(rollout):
                return await client.post("/v1/score", json={"rollouts": [body(rollout)]})

            first = [asyncio.create_task(post(rollout)) for rollout in rollouts[:30]]
            while held(await client.get("/metrics")) < 30:
                await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            while (await client.get("/ready")).json()["status"] != "draining":
                await asyncio.sleep(0.02)
            late = await post(rollouts[30])
            return [answer.status_code for answer in await asyncio.gather(*first)], late.status_code

    options = ("--upstream", vllm_server.url, "--profile", "demo")
    with vrprm_serve(tmp_path, *options) as server:
        inside, late = asyncio.run(asyncio.wait_for(posted(server), LIMIT))
        assert inside == [200] * 30
        assert late == 503
        assert server.process.wait(60) == 0


def held(metrics) -> float:
    """Requests to `/v1/score` that are inside."""
    lines = metrics.text.splitlines()
    return sum(float(x.split()[1]) for x in lines if x.startswith("vrprm_queue_requests{"))


def png(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def wrong_vllm(tmp_path_factory):
    """A template that deletes earlier thinking, and one log-probability at most."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "strips.jinja").write_text(STRIPS_THINKING)
    options = ("--chat-template", str(folder / "strips.jinja"), "--max-logprobs", "1")
    with vllm(folder, *options) as server:
        yield server


def test_a_template_that_deletes_thinking_is_refused_with_the_command(wrong_vllm, rollouts):
    with (
        closing(load_process_reward(f"openai+{wrong_vllm.url}", profile="demo")) as reward,
        pytest.raises(TemplateRefusedError, match="deletes thinking") as refused,
    ):
        reward.score(rollouts[:2])
    assert "vrprm-reward chat-template" in str(refused.value)


def test_log_probabilities_that_are_not_listed_are_an_error_and_never_a_verdict(
    wrong_vllm, rollouts
):
    options = OpenAIOptions(check_template=False)
    url = f"openai+{wrong_vllm.url}"
    with (
        closing(load_process_reward(url, profile="demo", openai=options)) as reward,
        pytest.raises(LogprobsMissingError, match="max-logprobs 20"),
    ):
        reward.score(rollouts[:2])
