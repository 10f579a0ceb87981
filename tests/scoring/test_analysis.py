"""Reading the analysis of the frame score_json, with its own and with another form of lines."""

import pytest

from vrprm_reward import load_profile
from vrprm_reward.engines.engine import Generation
from vrprm_reward.errors import AnalysisError
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.render import Case

PROFILE = load_profile("score_json")
CASE = Case("q", ("a", "b"), ())


def prefixes(text, profile=PROFILE):
    return FRAMES["score_json"].read(Generation(text, "stop", 1, 1), profile, CASE).prefixes


def test_the_verdicts_stand_behind_the_boxes_of_the_analysis_lines():
    head = "[Preliminary thinking]\n<think>Step 0: \\boxed{0}</think>\n[Step Analysis]\n"
    first = f"{head}Step 0: \\boxed{{2}} is right \\boxed{{"
    second = f"{first}1}}\n- Step 1: no \\boxed{{"
    assert prefixes(f"{second}0}}\n[Final Scores]\n") == (first, second)


def test_thinking_opened_by_the_template_is_not_searched_for_verdicts():
    text = "Step 0: \\boxed{0}\n</think>\nStep 0: \\boxed{1}\nStep 1: \\boxed{1}"
    start = text.index("Step 0: \\boxed{1")
    first = text[: start + len("Step 0: \\boxed{")]
    assert prefixes(text) == (first, f"{first}1}}\nStep 1: \\boxed{{")


@pytest.mark.parametrize(
    "lines", ["", "Step 0: \\boxed{1}", "Step 1: \\boxed{1}\nStep 0: \\boxed{1}"]
)
def test_a_wrong_number_or_order_of_lines_is_an_error(lines):
    with pytest.raises(AnalysisError, match="the response has steps 0 to 1"):
        prefixes(f"<think>a</think>\n[Step Analysis]\n{lines}")


def test_a_profile_may_say_how_analysis_lines_look():
    judge = PROFILE.judge.model_copy(update={"analysis_line": r"^\((\d)\).*verdict: (?=[01]$)"})
    profile = PROFILE.model_copy(update={"judge": judge})
    text = "<think>a</think>\n(0) fine, verdict: 1\n(1) not, verdict: 0"
    assert [prefix[-9:] for prefix in prefixes(text, profile)] == ["verdict: "] * 2
    with pytest.raises(AnalysisError, match=r"lines for steps \[\]"):
        prefixes("<think>a</think>\nStep 0: \\boxed{1}", profile)
