import asyncio

import pytest

from tests.server.doubles import ScriptedReward, p_of, picture
from vrprm_openrlhf.errors import RunStopped, UnscoredError
from vrprm_openrlhf.judge import Judge
from vrprm_openrlhf.reward import _judge_here, reward_func
from vrprm_openrlhf.settings import Settings
from vrprm_reward.rewards.masked_share import FEWEST
from vrprm_reward.types import Problem, Rollout

KEYS = {
    "vrprm_unscored",
    "vrprm_unscored_ours",
    "vrprm_mean_p",
    "vrprm_min_p",
    "vrprm_steps",
    "vrprm_outcome",
    "vrprm_outcome_known",
    "vrprm_seconds",
}


def judge(*, masks=True, rule=None, **values):
    settings = Settings.model_validate(
        {"url": "http://a", "outcome": "exact", "rule": rule or {}, **values}
    )
    return Judge(settings, masks=masks, reward=ScriptedReward())


def ask(asked, *responses, answer="3"):
    problem = Problem(question="Q?", images=(picture(),), reference_answer=answer)
    rollouts = [Rollout(problem=problem, response=response) for response in responses]

    async def all_of_them():
        return [await asked.ajudge(rollout) for rollout in rollouts]

    return asyncio.run(all_of_them())


def test_a_scalar_is_by_default_the_smallest_probability_of_a_right_answer():
    (found,) = ask(judge(), "One.\n\nThe answer is 3")
    p = p_of("One."), p_of("The answer is 3")
    assert (found.scalar, found.outcome) == (pytest.approx(min(p)), 1.0)
    assert found.filter_score == 1.0
    gated = judge(rule={"combination": "gated"}, aggregation="mean")
    (found,) = ask(gated, "One.\n\nThe answer is 3")
    assert found.scalar == pytest.approx(sum(p) / 2 + 1)


def test_dense_rewards_keep_the_outcome_in_the_scalar():
    rule = {"combination": "gated", "credit": "raw"}
    (found,) = ask(judge(mode="dense", rule=rule), "One.\n\nThe answer is 3")
    assert found.scalar == 1.0
    assert found.reward.rewards == (p_of("One."), p_of("The answer is 3"))


def test_by_default_the_scalar_of_a_dense_run_is_all_that_is_earned_and_a_critic_gets_the_parts():
    first, second = p_of("One."), p_of("The answer is 3")
    least = min(first, second)
    for advantage, earned, taken_back in [({}, least, 0), ({"advantage": "none"}, 0, -least)]:
        asked = judge(mode="dense", **advantage)
        right, wrong = ask(asked, "One.\n\nThe answer is 3", "One.\n\nThe answer is 4")
        assert (right.scalar, wrong.scalar) == pytest.approx((earned, taken_back))
        assert right.reward.rewards == pytest.approx((first, min(0, second - first)))


@pytest.mark.parametrize("mode", ["dense", "scalar"])
def test_by_default_a_wrong_answer_earns_nothing_and_is_not_masked(mode):
    (found,) = ask(judge(mode=mode), "One.\n\nThe answer is 4")
    assert (found.scalar, found.outcome, found.filter_score) == (0.0, 0.0, 0.0)
    assert found.reward.total == 0.0
    assert not found.reward.masked


def test_every_rollout_has_the_same_numbers():
    found = ask(judge(), "One.", "fail", "")
    assert {frozenset(each.numbers()) for each in found} == {frozenset(KEYS)}
    assert [each.numbers()["vrprm_unscored_ours"] for each in found] == [0.0, 1.0, 0.0]
    assert [each.numbers()["vrprm_unscored"] for each in found] == [0.0, 1.0, 1.0]


def test_an_outcome_that_is_not_known_is_told_from_a_wrong_one():
    wrong, right = ask(judge(), "One.", "The answer is 3")
    (unknown,) = ask(judge(), "One.", answer=None)
    keys = ("vrprm_outcome", "vrprm_outcome_known")
    found = [[each.numbers()[key] for key in keys] for each in (wrong, right, unknown)]
    assert found == [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("mode", ["dense", "scalar"])
def test_a_masked_rollout_is_filtered_by_its_outcome_and_without_one_by_half(mode):
    (known,) = ask(judge(mode=mode), "fail: the answer is 3")
    (unknown,) = ask(judge(mode=mode), "One.", answer=None)
    missing = judge(mode=mode).unscored("image_missing", "no image")
    assert [each.reward.masked for each in (known, unknown, missing)] == [True] * 3
    assert [each.filter_score for each in (known, unknown, missing)] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("mode", ["dense", "scalar"])
def test_an_outcome_that_is_not_trained_on_is_not_filtered_by(mode):
    asked = judge(mode=mode, rule={"combination": "process"})
    found, masked = ask(asked, "One.\n\nThe answer is 3", "fail: the answer is 3")
    assert found.outcome == masked.outcome == 1.0
    p = p_of("One."), p_of("The answer is 3")
    assert [found.filter_score, masked.filter_score] == [
        sum(p) / 2 if mode == "dense" else min(p), 0.5
    ]  # fmt: skip


def test_without_outcomes_dynamic_filtering_reads_the_reward():
    (found,) = ask(judge(rule={"combination": "process"}, outcome="none"), "One.")
    assert found.outcome is None
    assert found.filter_score == found.scalar == p_of("One.")


def test_a_dense_run_without_outcomes_is_not_filtered_out_as_a_whole():
    asked = judge(mode="dense", rule={"combination": "process"}, outcome="none")
    (found,) = ask(asked, "One.\n\nThe answer is 3")
    assert found.scalar == 0.0
    assert found.filter_score == (p_of("One.") + p_of("The answer is 3")) / 2


@pytest.mark.parametrize("mode", ["dense", "scalar"])
def test_a_rule_of_outcomes_alone_never_asks_the_judge(mode):
    asked = judge(mode=mode, rule={"combination": "outcome"})
    found = ask(asked, "The answer is 3", "fail")
    assert [(each.scalar, each.filter_score) for each in found] == [(1.0, 1.0), (0.0, 0.0)]
    assert [each.reward.rewards for each in found] == (
        [(0.0,), (0.0,)] if mode == "dense" else [(1.0,), (0.0,)]
    )
    assert asked._reward.calls == []
    assert {frozenset(each.numbers()) for each in found} == {frozenset(KEYS)}
    assert all(each.numbers()["vrprm_unscored"] == 0.0 for each in found)


def test_an_outcome_that_is_off_and_needed_is_refused():
    with pytest.raises(ValueError, match="VRPRM_OPENRLHF_COMBINATION=process"):
        judge(outcome="none")


def test_without_the_hook_an_unscored_rollout_gets_the_reward_of_the_settings():
    (found,) = ask(judge(masks=False, unscored_reward=-0.5), "fail")
    assert found.scalar == -0.5


def test_without_the_hook_and_without_that_setting_the_run_stops_with_the_reason():
    with pytest.raises(UnscoredError, match=r"engine: see .*UNSCORED_REWARD"):
        ask(judge(masks=False), "fail")


def test_too_many_unscored_rollouts_stop_the_run():
    few = ["fail", "One."] * (FEWEST // 2)
    asked = judge(max_masked_share=0.5)
    ask(asked, *few)
    with pytest.raises(UnscoredError, match=r"9 of the last 17 rollouts.*engine"):
        ask(asked, "fail")


def test_a_few_failures_at_the_start_stop_nothing():
    assert len(ask(judge(max_masked_share=0.0), *["fail"] * (FEWEST - 1))) == FEWEST - 1


@pytest.fixture
def fresh():
    _judge_here.cache_clear()
    yield
    _judge_here.cache_clear()


@pytest.mark.parametrize(
    ("mode", "label", "says"),
    [
        ("dense", {"question": "Q?", "images": ["a.png"]}, "--train.agent_func_path"),
        ("scalar", "", "--data.label_key"),
        ("scalar", {"question": "Q?"}, "images is missing"),
        (None, {}, "VRPRM_OPENRLHF_URL is not set"),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_a_reward_function_stops_the_run_where_an_exception_would_be_hidden(
    monkeypatch, mode, label, says
):
    if mode:
        monkeypatch.setenv("VRPRM_OPENRLHF_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("VRPRM_OPENRLHF_MODE", mode)
    with pytest.raises(RunStopped, match=says):
        reward_func(["p r"], ["p "], [label])
    assert not issubclass(RunStopped, Exception)
