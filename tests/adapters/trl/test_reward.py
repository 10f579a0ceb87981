import pickle

import pytest

from tests.server.doubles import ScriptedReward, p_of, picture
from vrprm_reward.errors import EngineError, InputError
from vrprm_reward.rewards.combine import RewardRule
from vrprm_reward.rewards.masked_share import FEWEST
from vrprm_trl import ProcessRewardFunction
from vrprm_trl.conversation import question_and_images, response_text

PROMPT = [
    {"role": "system", "content": "Think."},
    {
        "role": "user",
        "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "How many?"}],
    },
]
SUM = RewardRule(combination="sum", credit="raw")
TEXTS = ["One.\n\nThe answer is 3", "One.", "", "fail"]


def completions(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def make(**more):
    return ProcessRewardFunction(ScriptedReward(), outcome="exact", **more)


def call(function, *texts, **more):
    return function(
        prompts=[PROMPT] * len(texts),
        completions=completions(*texts),
        completion_ids=[[1]] * len(texts),
        answer=["3"] * len(texts),
        trainer_state=None,
        **more,
    )


def test_a_reward_is_the_aggregate_and_the_outcome_and_none_when_it_is_unscored():
    p = p_of("One."), p_of("The answer is 3")
    assert call(make(), *TEXTS) == [pytest.approx(min(p)), 0.0, 0.0, None]
    found = call(make(rule=SUM, aggregation="mean"), *TEXTS)
    assert found == [pytest.approx(sum(p) / 2 + 1), p_of("One."), 0.0, None]


def test_the_numbers_of_a_batch_are_logged():
    logged = {}
    call(make(), *TEXTS, log_metric=logged.__setitem__)
    assert logged["rewards/process_reward/masked_share"] == 0.25
    assert logged["rewards/process_reward/unscorable_share"] == 0.25
    assert logged["rewards/process_reward/outcome/mean"] == pytest.approx(1 / 3)
    assert {f"rewards/process_reward/{n}/mean" for n in ("p_correct", "steps")} < set(logged)


def test_what_the_policy_saw_is_what_is_judged():
    reward = ScriptedReward()
    call(ProcessRewardFunction(reward, outcome="exact"), "One.")
    (asked,) = reward.calls[0]
    assert asked.problem.question == "<image>How many?"
    assert asked.problem.images == (picture(),)
    assert asked.problem.reference_answer == "3"


def test_with_steps_the_number_is_the_outcome_and_the_steps_are_kept_once():
    function = make(steps=True, rule=SUM)
    assert call(function, *TEXTS) == [1.0, 0.0, 0.0, None]
    kept = function.take_steps()
    assert [each.reward.rewards for each in kept] == [
        (p_of("One."), p_of("The answer is 3")),
        (p_of("One."),),
        (0.0,),
        (),
    ]
    assert [each.text for each in kept] == TEXTS
    with pytest.raises(InputError, match="no step rewards"):
        function.take_steps()


@pytest.mark.parametrize("outcome", ["math", "exact", "none"])
def test_it_pickles_and_has_a_name(outcome):
    rule = RewardRule(combination="process" if outcome == "none" else "gated")
    function = ProcessRewardFunction("http://127.0.0.1:9", outcome=outcome, rule=rule, name="vrprm")
    copy = pickle.loads(pickle.dumps(function))
    assert copy.__name__ == "vrprm"


def test_a_timeout_in_the_small_batch_of_one_process_stops_nothing():
    function = make(rule=SUM, max_masked_share=0.2)
    for _ in range(FEWEST):
        assert call(function, "One.") == [p_of("One.")]
    assert call(function, "fail") == [None]


def test_too_many_unscored_completions_stop_the_run():
    function = make(max_masked_share=0.5)
    for _ in range(FEWEST // 2):
        call(function, "fail", "One.")
    with pytest.raises(EngineError, match=r"9 of the last 17 .* max_masked_share = 0\.5.*engine"):
        call(function, "fail")


@pytest.mark.parametrize(
    ("function", "prompt", "columns", "says"),
    [
        (make(), PROMPT, {}, "no column 'answer'"),
        (make(question_column="problem"), PROMPT, {"answer": ["3"]}, "no column 'problem'"),
        (make(), "How many?", {"answer": ["3"]}, "is a text"),
        (make(), [{"role": "user", "content": "How many?"}], {"answer": ["3"]}, "no image"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused_before_anything_is_scored(
    function, prompt, columns, says
):
    with pytest.raises(InputError, match=says):
        function(prompts=[prompt], completions=completions("One."), **columns)


def test_a_process_only_rule_needs_no_answers():
    function = make(rule=RewardRule(combination="process"))
    assert function(prompts=[PROMPT], completions=completions("One.")) == [p_of("One.")]


@pytest.mark.parametrize("steps", [False, True])
def test_a_rule_of_outcomes_alone_never_asks_the_judge(steps):
    reward = ScriptedReward()
    rule = RewardRule(combination="outcome")
    function = ProcessRewardFunction(reward, outcome="exact", rule=rule, steps=steps)
    assert call(function, "The answer is 3", "fail") == [1.0, 0.0]
    assert reward.calls == []
    if steps:
        assert [each.reward.rewards for each in function.take_steps()] == [(0.0,), (0.0,)]


def test_an_outcome_that_is_off_and_needed_is_refused():
    with pytest.raises(InputError, match='RewardRule\\(combination="process"\\)'):
        ProcessRewardFunction(ScriptedReward(), outcome="none")


@pytest.mark.parametrize(
    ("prompt", "more", "match"),
    [
        (
            [PROMPT[1] | {"content": PROMPT[1]["content"][:1]}],
            {},
            r"row 0 .* no question \('<image>'",
        ),
        (PROMPT, {"asked": [None]}, r"row 0 .* no question \(None\) in its column 'asked'"),
    ],
)
def test_a_row_without_a_question_is_named(prompt, more, match):
    function = make(question_column="asked" if more else None)
    with pytest.raises(InputError, match=match):
        function(prompts=[prompt], completions=completions("One."), answer=["3"], **more)


def test_conversations_are_read_in_every_form_that_trl_has():
    assert question_and_images(PROMPT) == ("<image>How many?", (picture(),))
    one, other = picture(), picture()
    parts = ["Figure 1: ", one, " Figure 2: ", other, " Which is red?"]
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in parts
    ]
    interleaved = [{"role": "user", "content": content}, {"role": "user", "content": "Say."}]
    assert question_and_images(interleaved) == (
        "Figure 1: <image> Figure 2: <image> Which is red?\n\nSay.",
        (one, other),
    )
    assert question_and_images([{"role": "user", "content": "Why?"}]) == ("Why?", ())
    assert response_text("A.") == "A."
    assert (
        response_text([{"role": "assistant", "content": [{"type": "text", "text": "A."}]}]) == "A."
    )
    with pytest.raises(InputError, match="2 messages"):
        response_text(completions("A.", "B.")[0] * 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reasoning_content", "There are two.\n\nSo four: 4."),
        ("thinking", "There are two.\n\nSo four: 4."),
        ("tool_calls", [{"type": "function", "function": {"name": "count", "arguments": {}}}]),
    ],
)
def test_a_response_that_trl_has_taken_apart_is_refused_with_what_switches_that_off(key, value):
    message = {"role": "assistant", "content": "4", key: value}
    with pytest.raises(InputError, match=f"{key}.*response_template = None") as raised:
        response_text([message])
    assert "tools" in str(raised.value)
    assert response_text([message | {key: value[:0]}]) == "4"


def test_a_share_that_is_none_is_refused():
    with pytest.raises(InputError, match="max_masked_share"):
        make(max_masked_share=1.5)
