"""One rollout after another through the judge: what its row says, whatever happens."""

import asyncio
import logging
from collections import UserList
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from tests.qwen_vocabulary import qwen3_tokenizer
from vrprm_reward import ProcessScore
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.errors import InputError
from vrprm_reward.scoring.scorer import VRPRMScorer
from vrprm_verl.judge import Judge, Sample, load_reward
from vrprm_verl.row import ROW, checksum
from vrprm_verl.settings import RewardSettings, reward_settings

IMAGE = Image.new("RGB", (8, 8), "red")
PROMPT = {
    "role": "user",
    "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "How many?"}],
}
RESPONSE = "One and two.\n\nThe answer is 3."


class Scripted:
    """Gives every step the next probability; keeps what it was asked."""

    def __init__(self, *p):
        self.p, self.asked = p, []

    async def ascore(self, rollouts):
        self.asked += rollouts
        return [
            ProcessScore(
                status="scored", steps=rollout.steps, p_correct=self.p[: len(rollout.steps)]
            )
            for rollout in rollouts
        ]


class Failing:
    """Says, or does, one thing."""

    def __init__(self, what):
        self.what = what

    async def ascore(self, rollouts):
        if isinstance(self.what, float):
            await asyncio.sleep(self.what)
        if isinstance(self.what, Exception):
            raise self.what
        return [self.what] * len(rollouts)


@pytest.fixture(scope="module")
def tokenizer():
    return qwen3_tokenizer()


GATED = {"outcome": "exact", "combination": "gated", "credit": "raw"}


@pytest.fixture
def judged(tokenizer):
    def judge(reward, response=RESPONSE, *, mask="all", messages=(PROMPT,), truth="3", **kw):
        settings = kw.pop("settings", {})
        extra_info = kw.pop("extra_info", {})
        ids = tokenizer.encode(response, add_special_tokens=False)
        sample = Sample(
            ids=ids,
            messages=messages,
            mask=[1] * len(ids) if mask == "all" else mask,
            extra_info=extra_info,
            reward_model={"ground_truth": truth},
            data_source="geometry",
        )
        chosen = RewardSettings(**{**GATED, **settings})
        return asyncio.run(Judge(chosen, tokenizer, reward, **kw).row(sample))

    return judge


def test_a_rollout_is_scored_rewarded_and_placed(judged, tokenizer):
    reward = Scripted(0.9, 0.6)
    row = judged(reward)
    assert (row.reward.rewards, row.reward.end) == ((0.9, 0.6), 1.0)
    assert row.reward.outcome == 1.0
    ids = tokenizer.encode(RESPONSE, add_special_tokens=False)
    assert row.belongs_to(ids)
    # Nothing stands behind the last step: its reward is a token before what the end earns.
    assert row.tokens[-1] + 1 == row.last == len(ids) - 1
    (rollout,) = reward.asked
    assert rollout.problem.question == "<image>How many?"
    assert rollout.problem.images == (IMAGE,)
    assert rollout.problem.reference_answer == "3"
    assert rollout.response == RESPONSE


def test_the_outcome_is_read_from_what_the_policy_wrote_and_not_a_tool(judged, tokenizer):
    own, tool = "I look.", " The answer is 3."
    count = [len(tokenizer.encode(text, add_special_tokens=False)) for text in (own, tool)]
    row = judged(Scripted(0.9), own + tool, mask=[1] * count[0] + [0] * count[1])
    assert row.reward.outcome == 0.0
    assert (row.tokens, row.last) == ((count[0] - 2,), count[0] - 1)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (ProcessScore(status="unscored_ours", reason="server_unreachable", detail="gone"), None),
        (RuntimeError("a bug"), "adapter_error"),
        (InputError("refused"), "input"),
        (30.0, "timeout"),
    ],
)
def test_whatever_happens_is_a_masked_row_with_a_reason_and_never_an_exception(
    judged, caplog, what, reason
):
    with caplog.at_level(logging.ERROR):
        row = judged(Failing(what), settings={"timeout": 0.3 if what == 30.0 else 30})
    assert row.reward.masked
    assert row.reward.reason == (reason or "server_unreachable")
    assert row.tokens == ()
    assert not row.dense(5).any()
    assert row.reward.reason in caplog.text
    assert set(row.extra_info()) == set(judged(Scripted(0.9, 0.6)).extra_info())


def test_a_prompt_without_its_image_is_masked(judged):
    row = judged(Scripted(0.9, 0.6), messages=({"role": "user", "content": "How many?"},))
    assert (row.reward.masked, row.reward.reason) == (True, "image_missing")


@pytest.mark.parametrize("response", ["<|im_end|>", "  <|im_end|>"])
def test_an_empty_response_gets_the_lowest_reward_on_its_last_token(judged, response):
    reward = Scripted()
    row = judged(reward, response, settings={"combination": "sum", "credit": "centred"})
    assert (row.reward.status, row.reward.reason) == ("unscored_response", "response_empty")
    assert row.dense(3)[row.tokens[0]] == -1
    assert reward.asked == []


def test_a_response_without_any_token_is_masked_since_there_is_nowhere_to_put_a_reward(judged):
    row = judged(Scripted(), "")
    assert (row.reward.masked, row.reward.reason) == (True, "no_policy_token")


@pytest.mark.parametrize(
    "settings", [{"credit": "min_form"}, {"combination": "sound", "credit": "running_min"}]
)
def test_a_wrong_answer_earns_nothing_and_its_steps_stay_visible(judged, settings):
    row = judged(Scripted(0.9, 0.6), truth="4", settings=settings)
    assert (row.reward.total, row.reward.masked) == (0.0, False)
    assert row.dense(64).nonzero().flatten().tolist() == [*row.tokens, row.last]


def test_validation_rows_are_rewarded_by_their_outcome_alone(judged):
    reward = Scripted(0.9, 0.6)
    row = judged(reward, extra_info={"split": "test"})
    assert (row.reward.rewards, row.validation) == ((1.0,), True)
    assert row.extra_info()["acc"] == 1.0
    assert reward.asked == []
    full = judged(reward, extra_info={"split": "test"}, settings={"validation": "full"})
    assert (full.reward.rewards, full.reward.end, full.validation) == ((0.9, 0.6), 1.0, False)


NO_OUTCOME = {"combination": "process", "outcome": "none"}


@pytest.mark.parametrize(
    ("truth", "settings", "outcome"),
    [
        (None, NO_OUTCOME, None),
        ("3", NO_OUTCOME, None),
        (None, {"combination": "process"}, None),
        (["3"], {"combination": "process"}, None),
        ("3", {"combination": "process"}, 1.0),
    ],
)
def test_a_validation_row_without_outcome_shows_its_process_scores_where_they_are_the_rule(
    judged, caplog, truth, settings, outcome
):
    row = judged(Scripted(0.9, 0.6), truth=truth, settings=settings, extra_info={"split": "test"})
    assert (row.reward.masked, row.reward.outcome) == (False, outcome)
    assert row.extra_info()["score"] == pytest.approx(1.5 if outcome is None else 1.0)
    assert row.validation == (outcome is not None)
    assert "has no score" not in caplog.text


def test_a_validation_row_without_outcome_is_masked_where_the_rule_needs_one(judged):
    row = judged(Scripted(0.9, 0.6), truth=None, extra_info={"split": "test"})
    assert (row.reward.reason, row.validation) == ("outcome_no_reference", True)


def test_the_split_whose_rows_are_not_judged_is_told_once(tokenizer, caplog):
    ids = tokenizer.encode(RESPONSE, add_special_tokens=False)

    def told(**settings):
        caplog.clear()
        judge = Judge(RewardSettings(outcome="exact", **settings), tokenizer, Scripted(0.9, 0.6))

        async def rows():
            for split in ("train", "validation", "validation", "test"):
                extra = {"split": split}
                await judge.row(Sample(ids, (PROMPT,), [1] * len(ids), extra, {"ground_truth": 3}))

        asyncio.run(rows())
        return [record.getMessage() for record in caplog.records]

    first, second = told()
    assert "extra_info.split is 'validation'" in first
    assert "+reward.vrprm.validation=full" in first
    assert "extra_info.split is 'test'" in second
    assert told(validation="full") == told(combination="outcome") == []


def test_the_rule_outcome_never_asks_the_judge(judged):
    reward = Scripted(0.9, 0.6)
    assert judged(reward, settings={"combination": "outcome"}).reward.rewards == (1.0,)
    assert reward.asked == []


def test_without_a_ground_truth_the_row_is_masked_where_the_rule_needs_one(judged):
    assert judged(Scripted(0.9, 0.6), truth=None).reward.reason == "outcome_no_reference"
    row = judged(Scripted(0.9, 0.6), truth=None, settings={"combination": "process"})
    assert row.reward.rewards == (0.9, 0.6)


@pytest.mark.parametrize(
    ("truth", "kind"), [(["3"], "list"), ({"answer": "3"}, "dict"), (np.array(["3"]), "ndarray")]
)
def test_a_ground_truth_of_several_parts_is_named_as_what_it_is(judged, truth, kind):
    reward = judged(Scripted(0.9, 0.6), truth=truth).reward
    assert (reward.masked, reward.reason) == (True, "outcome_reference_unreadable")
    assert f"ground_truth is a {kind}" in reward.detail
    assert "outcome=custom_reward_function" in reward.detail
    assert judged(Scripted(0.9, 0.6), truth=truth, settings=NO_OUTCOME).reward.reason == "off"


@pytest.mark.parametrize("answer", [0.5, {"score": 0.2, "acc": 0.5}])
def test_verls_own_function_can_decide_the_outcome(judged, answer):
    asked = {}

    def compute_score(**arguments):
        asked.update(arguments)
        return answer

    async def awaited(**arguments):
        return answer

    for function in (compute_score, awaited):
        row = judged(
            Scripted(0.9, 0.6),
            extra_info={"index": 7},
            settings={"outcome": "custom_reward_function"},
            compute_score=function,
        )
        assert row.reward.outcome == 0.5
    assert asked == {
        "data_source": "geometry",
        "solution_str": RESPONSE,
        "ground_truth": "3",
        "extra_info": {"index": 7},
    }
    with pytest.raises(InputError, match=r"reward\.custom_reward_function\.path"):
        judged(Scripted(), settings={"outcome": "custom_reward_function"})


def test_several_turns_without_a_mask_are_masked_rather_than_judged_as_one(judged, tokenizer):
    turns = "one<|im_end|>\n<|im_start|>user\ntool<|im_end|>\n<|im_start|>assistant\ntwo"
    assert "agent loops" in judged(Scripted(0.9), turns, mask=None).reward.detail
    assert judged(Scripted(0.9, 0.6), mask=None).reward.rewards == (0.9, 0.6)


def test_a_note_on_the_prompt_says_what_verl_leaves_out(judged, tokenizer):
    turns = "one<|im_end|>\n<|im_start|>user\ntool<|im_end|>\n<|im_start|>assistant\nanswer is 3"
    ids = tokenizer.encode(turns, add_special_tokens=False)
    tool = ids.index(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    mask = [1] * tool + [0] * (len(ids) - tool - 4) + [1] * 4

    note = {"ground_truth": 3, "extra_info": {"index": 1}, "masks": {str(checksum(ids)): mask}}
    row = judged(
        Scripted(0.9, 0.6), turns, mask=None, truth=None, messages=({**PROMPT, "vrprm": note},)
    )
    assert row.reward.outcome == 1.0
    assert all(mask[token] for token in row.tokens)


@pytest.mark.parametrize("truth", [48, ["48", "forty-eight"], {"target": 48}, None])
def test_verls_own_function_gets_the_ground_truth_as_it_is(judged, truth):
    asked = []

    def compute_score(**arguments):
        asked.append(arguments["ground_truth"])
        return 1.0

    row = judged(
        Scripted(0.9, 0.6),
        truth=truth,
        settings={"outcome": "custom_reward_function"},
        compute_score=compute_score,
    )
    assert (row.reward.outcome, asked) == (1.0, [truth])


GONE = ProcessScore(status="unscored_ours", reason="server_unreachable", detail="no connection")


class Slow:
    """Takes its time for every rollout, never answers, or says that nobody does."""

    def __init__(self, seconds, score=None):
        self.seconds, self.score, self.asked = seconds, score, 0

    async def ascore(self, rollouts):
        self.asked += len(rollouts)
        await asyncio.sleep(self.seconds)
        if self.score is not None:
            return [self.score] * len(rollouts)
        return await Scripted(0.9, 0.6).ascore(rollouts)


@pytest.mark.parametrize(
    ("reward", "timeout", "masked"),
    [(Slow(0.2), 0.6, 0), (Slow(60), 0.3, 6), (Slow(0.25, GONE), 0.3, 6)],
)
def test_waiting_for_a_place_counts_only_where_nothing_is_answered(
    tokenizer, reward, timeout, masked
):
    settings = RewardSettings(outcome="exact", timeout=timeout, max_concurrency=1)
    ids = tokenizer.encode(RESPONSE, add_special_tokens=False)
    sample = Sample(ids, (PROMPT,), [1] * len(ids), {}, {"ground_truth": "3"}, "geometry")

    async def all_of_them():
        judge = Judge(settings, tokenizer, reward)
        return await asyncio.gather(*(judge.row(sample) for _ in range(6)))

    rows = asyncio.run(all_of_them())
    assert sum(row.reward.masked for row in rows) == masked
    # Where nobody answers, the others do not wait their turns.
    assert reward.asked <= 2 if masked else reward.asked == 6


def test_the_key_of_an_openai_compatible_server_comes_from_the_environment(monkeypatch):
    made = []
    monkeypatch.setattr(
        "vrprm_verl.judge.load_process_reward", lambda *_, openai, **__: made.append(openai)
    )
    monkeypatch.setenv("VRPRM_UPSTREAM_KEY", "secret")
    load_reward(RewardSettings(url="openai+http://h:1/v1"), None)
    load_reward(RewardSettings(), "h:1")
    assert [options.api_key for options in made] == ["secret", None]


def test_the_url_decides_who_is_asked():
    assert isinstance(load_reward(RewardSettings(url="http://h:1"), None), RemoteProcessReward)
    for settings, router in [
        (RewardSettings(url="openai+http://h:1/v1"), None),
        (RewardSettings(), "h:1"),
    ]:
        assert isinstance(load_reward(settings, router), VRPRMScorer)
    with pytest.raises(InputError, match=r"\+reward\.vrprm\.url"):
        load_reward(RewardSettings(), None)


def test_a_wrong_setting_is_named():
    with pytest.raises(InputError, match=r"reward\.vrprm\.combinaton: Extra inputs"):
        reward_settings({"combinaton": "sum"})
    with pytest.raises(InputError, match=r"reward\.vrprm\.steps\.part"):
        reward_settings({"steps": {"part": "question"}})
    with pytest.raises(InputError, match="loads no reward model"):
        reward_settings({"url": "demo"})
    with pytest.raises(InputError, match=r"outcome is 'none'.*combination=process"):
        reward_settings({"outcome": "none"})
    assert reward_settings(None) == RewardSettings()


def test_settings_may_come_in_containers_that_are_no_dictionaries():
    nested = MappingProxyType({"part": "answer"})
    found = reward_settings(
        MappingProxyType({"steps": nested, "validation_splits": UserList(["dev"])})
    )
    assert found.steps.part == "answer"
    assert found.validation_splits == ("dev",)


def test_a_row_is_json_with_its_reason(judged):
    row = judged(Failing(ProcessScore(status="unscored_ours", reason="server_timeout")))
    assert '"reason": "server_timeout"' in row.extra_info()[ROW]
