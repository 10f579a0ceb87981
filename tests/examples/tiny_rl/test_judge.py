import json
import random

import pytest

from examples.tiny_rl.__main__ import RATES
from examples.tiny_rl.arms import ARMS, BY_NAME, COMPARED, SWEPT, Arm
from examples.tiny_rl.gaming import GAMED
from examples.tiny_rl.judge import judge, spoilt, with_other_pictures
from vrprm_reward.rewards.combine import RewardRule
from vrprm_reward.steps import split_steps
from vrprm_reward.types import ProcessScore


class Recorder:
    """A process reward that tells what it was asked, and likes all steps but the first."""

    def __init__(self):
        self.asked = []

    def score(self, rollouts):
        self.asked += rollouts
        return [self._score(rollout) for rollout in rollouts]

    async def ascore(self, rollouts):
        return self.score(rollouts)

    def _score(self, rollout):
        steps = split_steps(rollout.response)
        p = (0.1, *[0.9] * (len(steps) - 1))
        return ProcessScore(status="scored", steps=steps, p_correct=p)


def test_every_named_arm_is_there():
    assert set(COMPARED) | set(SWEPT) | set(GAMED) | set(BY_NAME) == set(ARMS)


def test_which_arms_pay_a_wrong_answer_for_its_steps():
    by_rule = {}
    for name, arm in ARMS.items():
        by_rule.setdefault(arm.rule.combination, set()).add(name)
    assert by_rule == {
        "sum": {"outcome_dense", "outcome_min_form", "centred", "clip_delta"},
        "process": {
            "dense", "process_grpo", "raw_sum", "min_form", "dense_shuffled", "dense_random",
        },
        "gated": {"gated_running_min", "gated_min_form", "outcome_gated_dense", "gated"},
        "outcome": {"outcome", "outcome_end_apart"},
        "ps_grpo": {"ps_grpo"},
        "sound": {"sound"},
    }  # fmt: skip


def test_the_comparison_knows_a_rate_for_each_of_its_arms():
    assert set(COMPARED) | set(SWEPT) | set(BY_NAME) <= set(json.loads(RATES.read_text())["hard"])


def test_an_arm_with_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="no estimator 'ppo'"):
        Arm(RewardRule(), "ppo", "nothing")


def test_the_reward_model_sees_the_picture_but_not_the_answer(some_tasks):
    reward = Recorder()
    judged = judge(reward, ARMS["raw_sum"], some_tasks[:2], ["One.\nTwo.", "One."], "0")
    assert [r.problem.images for r in reward.asked] == [(t.image,) for t in some_tasks[:2]]
    assert all(rollout.problem.reference_answer is None for rollout in reward.asked)
    assert [r.rewards for r in judged.rewards] == [(0.1, 0.9), (0.1,)]


def test_the_outcome_arm_asks_nobody(some_tasks):
    reward = Recorder()
    texts = [f"The answer is {some_tasks[0].question.answer}.", "The answer is many."]
    judged = judge(reward, ARMS["outcome"], [some_tasks[0]] * 2, texts, "0")
    assert [r.total for r in judged.rewards] == [1.0, 0.0]
    assert reward.asked == []


def test_in_the_shuffled_control_a_group_sees_the_picture_of_the_next_problem(some_tasks):
    reward = Recorder()
    each = [task for task in some_tasks[:3] for _ in range(2)]
    judge(reward, ARMS["dense_shuffled"], each, ["One."] * 6, "0")
    shown = [rollout.problem.images[0] for rollout in reward.asked]
    wanted = [some_tasks[i].image for i in (1, 1, 2, 2, 0, 0)]
    assert all(a is b for a, b in zip(shown, wanted, strict=True))
    assert [r.problem.question for r in reward.asked] == [task.question.text for task in each]


def test_no_picture_can_be_exchanged_within_one_problem(some_tasks):
    with pytest.raises(ValueError, match="no other problem"):
        with_other_pictures([some_tasks[0].unanswered] * 4)


def test_the_random_control_deals_out_the_very_same_scores(some_tasks):
    texts = [f"One.\nTwo {i}.\nThree." for i in range(8)]
    scores = Recorder().score(_rollouts(some_tasks[0], texts))
    dealt = spoilt(scores, "random", random.Random(0))
    pool = sorted(p for score in scores for p in score.p_correct)
    assert sorted(p for score in dealt for p in score.p_correct) == pool
    assert [s.p_correct for s in dealt] != [s.p_correct for s in scores]
    assert dealt == spoilt(scores, "random", random.Random(0))


def _rollouts(task, texts):
    from vrprm_reward import Rollout

    return [Rollout(problem=task.unanswered, response=text) for text in texts]
