"""What goes wrong between OpenRLHF and a reward server: a clear message, never a quiet one."""

import asyncio
import json
import socket
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from openrlhf.datasets.prompts_dataset import PromptDataset
from openrlhf.utils import agent as openrlhf_agent
from openrlhf.utils.agent import SingleTurnAgentExecutor

import vrprm_openrlhf.reward
from tests.integration.openrlhf.rollouts import Case, ScriptedEngine, execute, processor
from tests.server.doubles import PICTURE, served_process
from vrprm_openrlhf.data import Columns, open_output, prepared_row
from vrprm_openrlhf.errors import RunStopped, UnscoredError
from vrprm_openrlhf.executor import AgentExecutor
from vrprm_openrlhf.missing_reward import _checked
from vrprm_reward.images import ImageSettings
from vrprm_reward.rewards.masked_share import FEWEST


@pytest.fixture(scope="session")
def case(world_folder):
    return Case(31, world_folder)


@pytest.fixture
def dead_url():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def settings(monkeypatch, dead_url):
    def change(**values):
        defaults = {"url": dead_url, "outcome": "exact", "total_timeout": 1, "timeout": 1}
        for name, value in {**defaults, **values}.items():
            monkeypatch.setenv(f"VRPRM_OPENRLHF_{name.upper()}", str(value))

    vrprm_openrlhf.reward._judge_here.cache_clear()
    yield change
    vrprm_openrlhf.reward._judge_here.cache_clear()


@pytest.fixture
def hasty(monkeypatch):
    """OpenRLHF's client, but with one second instead of 180, and no pauses between its tries."""
    real = openrlhf_agent.aiohttp.ClientTimeout
    monkeypatch.setattr(openrlhf_agent.aiohttp, "ClientTimeout", lambda total: real(total=1))
    slept = asyncio.sleep
    monkeypatch.setattr(openrlhf_agent.asyncio, "sleep", lambda seconds: slept(0))


def test_an_empty_batch_is_answered(reward_server):
    body = {"query": [], "prompts": [], "labels": []}
    answer = httpx2.post(reward_server.url + "/get_reward", json=body)
    assert (answer.status_code, answer.json()["rewards"]) == (200, [])


def _inline(case):
    return {**case.label, "images": [PICTURE]}


def test_a_retry_after_a_timeout_joins_the_scoring_that_is_under_way(case, hasty):
    with served_process() as server:
        executor = SingleTurnAgentExecutor([server.url + "/get_reward"])
        engine = ScriptedEngine("sleep 2.5 One.")
        output = asyncio.run(execute(executor, case, engine=engine, label=_inline(case)))
        metrics = httpx2.get(server.url + "/metrics").text
    assert output["extra_logs"]["vrprm_steps"] == [1.0]
    scored = [line for line in metrics.splitlines() if line.startswith("vrprm_rollouts_total")]
    assert sum(float(line.split()[-1]) for line in scored) == 1, metrics


def test_openrlhf_itself_goes_on_without_a_reward_when_the_server_is_down(case, dead_url, hasty):
    stock = SingleTurnAgentExecutor([dead_url + "/get_reward"])
    plain = getattr(SingleTurnAgentExecutor.execute, "__wrapped__", SingleTurnAgentExecutor.execute)
    stock.execute = plain.__get__(stock)
    assert asyncio.run(execute(stock, case))["reward"] is None


@pytest.mark.parametrize("label", [None, "", {"answer": "3"}])
def test_with_the_hook_a_missing_reward_stops_the_run_and_names_the_server(
    case, dead_url, hasty, patched, reward_server, label
):
    url = dead_url if label is None else reward_server.url
    executor = SingleTurnAgentExecutor([url + "/get_reward"])
    with pytest.raises(UnscoredError, match=url):
        asyncio.run(execute(executor, case, label=case.label if label is None else label))


def test_the_check_lets_rewards_of_zero_pass():
    async def original(self):
        return {"reward": 0.0}

    executor = SimpleNamespace(reward_endpoints=["http://a"])
    assert asyncio.run(_checked(original)(executor)) == {"reward": 0.0}


def test_the_executor_stops_when_the_server_is_down_and_nothing_says_what_that_is_worth(
    case, settings, monkeypatch
):
    settings()
    monkeypatch.setattr("vrprm_openrlhf.executor.installed", lambda: False)
    with pytest.raises(UnscoredError, match=r"server_unreachable.*VRPRM_OPENRLHF_UNSCORED_REWARD"):
        asyncio.run(execute(AgentExecutor(), case))


async def _many(executor, case, count):
    return await asyncio.gather(*(execute(executor, case) for _ in range(count)))


def test_the_executor_masks_while_few_fail_and_stops_when_many_do(case, settings, patched):
    settings(mode="dense")
    executor = AgentExecutor()
    for output in asyncio.run(_many(executor, case, FEWEST - 1)):
        logs = output["extra_logs"]
        assert (output["reward"], logs["vrprm_unscored_ours"]) == (0.0, 1.0)
        assert (logs["vrprm_pos"], logs["vrprm_val"], logs["vrprm_n"]) == ([], [], 0.0)
    with pytest.raises(UnscoredError, match=r"16 of the last 16 rollouts.*server_unreachable"):
        asyncio.run(execute(executor, case))


def test_a_reward_function_stops_the_run_in_spite_of_openrlhf(case, settings, monkeypatch):
    settings()
    monkeypatch.setattr("vrprm_openrlhf.reward.installed", lambda: False)
    file = Path(vrprm_openrlhf.reward.__file__).with_name("reward_func.py")
    executor = SingleTurnAgentExecutor(str(file))
    with pytest.raises(RunStopped, match="server_unreachable"):
        asyncio.run(execute(executor, case))


def test_a_bad_image_masks_its_rollout_and_no_other(case, settings, patched, reward_server):
    settings(url=reward_server.url, total_timeout=300, timeout=300)
    executor = AgentExecutor()
    tiny = [case.image.resize((2, 2))]

    async def both():
        return await asyncio.gather(execute(executor, case), execute(executor, case, images=tiny))

    masked = [output["extra_logs"]["vrprm_unscored_ours"] for output in asyncio.run(both())]
    assert masked == [0.0, 1.0]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_prepared_data_loads_through_openrlhfs_dataset(case, tmp_path, kind):
    from datasets import load_dataset

    rows = [
        {"question": case.question, "images": [case.path], "answer": case.answer},
        {"question": "Is <image> it?", "images": case.path, "answer": 3},
    ]
    path = tmp_path / f"data.{kind}"
    with open_output(path) as write:
        for line, row in enumerate(rows):
            write(prepared_row(row, line=line, columns=Columns(), images=ImageSettings()))
    data = load_dataset(
        {"jsonl": "json"}.get(kind, kind),
        data_files=str(path),
        split="train",
        cache_dir=str(tmp_path),
    )
    args = SimpleNamespace(
        input_key="prompt", label_key="label", apply_chat_template=True, image_key="images"
    )
    strategy = SimpleNamespace(args=SimpleNamespace(data=args), is_rank_0=lambda: False)
    dataset = PromptDataset(data, processor(), strategy)
    source, prompt, label, images = dataset[0]
    assert (source, images) == ("default", [case.path])
    assert label == case.label
    assert json.dumps(label)
    assert prompt == case.prompt + "<|im_start|>assistant\n" or prompt == case.prompt
    assert dataset[1][2]["answer"] == "3"
    assert "<|image_pad|>" in dataset[1][1]
