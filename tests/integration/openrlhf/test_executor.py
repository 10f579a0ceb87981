"""OpenRLHF's loaders, its HTTP client and its executors against a running reward server."""

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from openrlhf.trainer.ray.vllm_engine import _load_agent_executor
from openrlhf.utils.agent import SingleTurnAgentExecutor

from tests.integration.openrlhf.batches import experience_maker, options
from tests.integration.openrlhf.rollouts import Case, ScriptedEngine, execute, processor
from tests.integration.processes import ROOT
from vrprm_openrlhf.errors import MissingHookError
from vrprm_openrlhf.executor import AgentExecutor, image_sources
from vrprm_openrlhf.judge import Judge
from vrprm_openrlhf.settings import Settings
from vrprm_reward import load_process_reward
from vrprm_reward.errors import InputError, LabelError
from vrprm_reward.rewards.advantage import leave_one_out, to_tokens
from vrprm_reward.rewards.answers import final_answer, same_text
from vrprm_reward.rewards.combine import RewardRule, step_rewards
from vrprm_reward.rewards.outcome import Outcome

OTHER_BATCH = 1e-6
"""How far a probability may move when other rollouts share its batch (float32 sums)."""


def path_of(which):
    """What `vrprm-reward openrlhf path` prints."""
    command = [sys.executable, "-m", "vrprm_reward.cli", "openrlhf", "path", which]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


@pytest.fixture
def settings(monkeypatch, reward_server):
    """Sets the adapter's variables; the server's URL stands already."""

    def change(**values):
        for name, value in {"url": reward_server.url, "outcome": "exact", **values}.items():
            monkeypatch.setenv(f"VRPRM_OPENRLHF_{name.upper()}", str(value))

    change()
    return change


@pytest.fixture(scope="session")
def cases(world_folder):
    return [Case(seed, world_folder) for seed in range(20, 26)]


@pytest.fixture(scope="session")
def direct(reward_server, cases):
    """The scores of the cases without OpenRLHF."""
    scores = load_process_reward(reward_server.url).score([case.rollout for case in cases])
    assert all(score.scored for score in scores)
    return scores


def outcome_of(case):
    return float(same_text(final_answer(case.response), case.answer))


class Recording:
    """Passes on to a process reward, and keeps what it was asked."""

    def __init__(self, reward):
        self.reward, self.asked = reward, []

    def score(self, rollouts):
        raise NotImplementedError

    async def ascore(self, rollouts):
        self.asked += rollouts
        return await self.reward.ascore(rollouts)


async def _all(executor, cases, **changes):
    return await asyncio.gather(*(execute(executor, case, **changes) for case in cases))


def test_the_http_client_of_openrlhf_gets_the_scores_of_direct_scoring(
    reward_server, cases, direct
):
    executor = SingleTurnAgentExecutor(remote_rm_url=[reward_server.url + "/get_reward"])
    for output, score in zip(asyncio.run(_all(executor, cases)), direct, strict=True):
        assert output["reward"] == [pytest.approx(fmean(score.p_correct), abs=OTHER_BATCH)]
        assert output["extra_logs"]["vrprm_steps"] == [len(score.steps)]


def test_the_prompts_images_are_expanded_in_the_query(cases):
    # The trap: the prompt as text is not the beginning of what was decoded.
    engine = ScriptedEngine("Yes.")
    asyncio.run(execute(SingleTurnAgentExecutor(), cases[0], engine=engine))
    ((ids, data),) = engine.prompts
    assert processor().tokenizer.decode(ids).count("<|image_pad|>") > 12
    assert cases[0].prompt.count("<|image_pad|>") == 1
    assert len(data["image"]) == 1


def test_the_python_loader_of_openrlhf_takes_our_file(settings, cases, direct):
    settings(combination="sum", aggregation="mean")
    executor = SingleTurnAgentExecutor(remote_rm_url=path_of("reward"))
    for output, score, case in zip(asyncio.run(_all(executor, cases)), direct, cases, strict=True):
        outcome = outcome_of(case)
        assert output["reward"] == [
            pytest.approx(fmean(score.p_correct) + outcome, abs=OTHER_BATCH)
        ]
        assert output["scores"] == [outcome]
        assert output["extra_logs"]["vrprm_outcome"] == [outcome]


def test_the_executor_loader_of_openrlhf_takes_our_file(settings, cases, direct):
    executor = _load_agent_executor(path_of("agent"))
    outputs = asyncio.run(_all(executor, cases))
    for output, score, case in zip(outputs, direct, cases, strict=True):
        earned = min(score.p_correct) if outcome_of(case) else 0
        assert output["reward"] == pytest.approx(earned, abs=OTHER_BATCH)
        assert output["scores"] == outcome_of(case)
        assert output["extra_logs"]["vrprm_mean_p"] == pytest.approx(
            fmean(score.p_correct), abs=OTHER_BATCH
        )
    assert len({frozenset(output["extra_logs"]) for output in outputs}) == 1


@pytest.mark.parametrize("ending", ["<|im_end|>", "", "<|im_end|><|endoftext|>"])
@pytest.mark.parametrize("text", ["One.\n\nTwo is 二.\n\nSo 🎈.", "<think>Hm.</think>A.", " A. \n"])
def test_the_response_is_judged_as_the_policy_wrote_it(settings, cases, text, ending):
    judge = Judge(Settings.from_environment(), masks=True, reward=Recording(None))
    judge._reward.reward = Fixed()
    executor = AgentExecutor(judge)
    asyncio.run(execute(executor, cases[0], engine=ScriptedEngine(text, ending)))
    (asked,) = judge._reward.asked
    assert asked.response == text
    assert asked.problem.question == cases[0].question
    assert asked.problem.images == (cases[0].path,)


class Fixed:
    async def ascore(self, rollouts):
        from vrprm_reward.types import ProcessScore

        return [ProcessScore(status="unscored_response", reason="x", detail="x")] * len(rollouts)


def test_the_image_that_is_judged_is_the_rollouts_own(settings, cases):
    executor = AgentExecutor()
    own, other = cases[0], cases[1]
    outputs = [
        asyncio.run(execute(executor, own, images=images))
        for images in ([own.path], own.image, [other.path])
    ]
    means = [output["extra_logs"]["vrprm_mean_p"] for output in outputs]
    assert means[0] == pytest.approx(means[1], abs=OTHER_BATCH)
    assert means[0] != means[2]


def test_images_come_in_every_form_that_openrlhf_reads(cases):
    data = Path(cases[0].path).read_bytes()
    text = base64.b64encode(data).decode()
    assert image_sources(text) == (data,)
    assert image_sources(base64.encodebytes(data).decode()) == (data,)
    assert image_sources([f"data:image/png;base64,{text}"]) == (f"data:image/png;base64,{text}",)
    assert image_sources([cases[0].path, None]) == (cases[0].path,)
    assert image_sources(cases[0].image) == (cases[0].image,)
    assert image_sources("https://h/" + "a" * 300) == ("https://h/" + "a" * 300,)
    assert image_sources(None) == ()


def test_each_step_reward_stands_on_the_token_that_ends_its_step(settings, patched, cases, direct):
    settings(mode="dense", combination="sum")
    outputs = asyncio.run(_all(AgentExecutor(), cases))
    tokenizer = processor().tokenizer
    for output, score, case in zip(outputs, direct, cases, strict=True):
        logs = output["extra_logs"]
        outcome = Outcome(outcome_of(case))
        rule = RewardRule(combination="sum", outcome_weight=0.0)
        assert logs["vrprm_val"] == pytest.approx(
            step_rewards(score.p_correct, outcome, rule)[0], abs=OTHER_BATCH
        )
        assert logs["vrprm_n"] == len(score.steps)
        assert output["reward"] == outcome.value
        assert isinstance(output["reward"], float)  # a list would corrupt the batch unseen
        first = output["action_ranges"][0][0]
        for position, step in zip(logs["vrprm_pos"], score.steps, strict=True):
            ids = output["observation_tokens"][first : position + 2]
            assert len(tokenizer.decode(ids)) >= step.end > len(tokenizer.decode(ids[:-1]))


def test_from_a_rollout_to_its_advantages(settings, patched, cases, direct):
    settings(mode="dense", combination="process")
    outputs = asyncio.run(_all(AgentExecutor(), cases))
    generator = SamplesGenerator.__new__(SamplesGenerator)
    samples = [generator._process_response_into_experience(o, max_len=2048) for o in outputs]
    maker = experience_maker(patched, options("dr_grpo", n=3))
    batches = maker.split_rollout_samples(samples)
    for batch in batches:
        batch.kl = torch.zeros(batch.action_mask.shape)
        batch.values = None
    found = [
        row
        for batch in maker.compute_advantages_and_returns(batches)
        for row in batch.advantages * batch.action_mask
    ]
    rule = RewardRule(combination="process")
    rewards = [torch.tensor(step_rewards(s.p_correct, Outcome(None), rule)[0]) for s in direct]
    by_hand = leave_one_out(rewards, [0, 0, 0, 1, 1, 1])
    for row, advantages, output in zip(found, by_hand, outputs, strict=True):
        mask = torch.zeros(len(row))
        start, stop = output["action_ranges"][0]
        mask[start - 1 : stop - 1] = 1
        expected = to_tokens(advantages, output["extra_logs"]["vrprm_pos"], mask)
        assert torch.allclose(row, expected, atol=1e-5)


def test_an_unscorable_response_has_the_lowest_reward_on_its_last_token(settings, patched, cases):
    settings(mode="dense", combination="sum", credit="centred")
    output = asyncio.run(execute(AgentExecutor(), cases[0], engine=ScriptedEngine("")))
    logs = output["extra_logs"]
    assert (logs["vrprm_val"], logs["vrprm_n"]) == ([-1.0], 1.0)
    assert logs["vrprm_pos"] == [len(output["observation_tokens"]) - 2]
    assert (logs["vrprm_unscored"], logs["vrprm_unscored_ours"]) == (1.0, 0.0)


def test_a_dense_run_without_the_hook_stops_with_the_command_that_installs_it(
    settings, monkeypatch
):
    settings(mode="dense")
    monkeypatch.setattr("vrprm_openrlhf.executor.installed", lambda: False)
    with pytest.raises(MissingHookError, match="RAY_RUNTIME_ENV_HOOK=vrprm_openrlhf"):
        _load_agent_executor(path_of("agent"))


def test_a_run_without_a_server_in_its_settings_does_not_start(monkeypatch):
    with pytest.raises(InputError, match="VRPRM_OPENRLHF_URL is not set"):
        _load_agent_executor(path_of("agent"))


@pytest.mark.parametrize(
    ("label", "says"),
    [("", "--data.label_key"), ("3", "object"), ({"answer": "3"}, "question is missing")],
)
def test_a_label_without_its_fields_stops_the_run_before_anything_is_generated(
    settings, cases, label, says
):
    engine = ScriptedEngine("Yes.")
    with pytest.raises(LabelError, match=says):
        asyncio.run(execute(AgentExecutor(), cases[0], engine=engine, label=label))
    assert engine.prompts == []


def _doctor():
    command = [sys.executable, "-W", "ignore", "-m", "vrprm_reward.cli", "doctor", "openrlhf"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_doctor_finds_everything_in_place(settings):
    ended = _doctor()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for text in ("openrlhf: 0.11.2", "methods are those that it knows", "is ready"):
        assert text in ended.stdout


def test_the_doctor_names_what_is_missing(settings, monkeypatch):
    settings(url="http://127.0.0.1:9")
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "other.hook")
    ended = _doctor()
    assert ended.returncode == 1
    for text in ("RAY_RUNTIME_ENV_HOOK is 'other.hook'", "http://127.0.0.1:9 cannot be reached"):
        assert text in ended.stdout
