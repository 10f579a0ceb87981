import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from vrprm_reward.blank import is_blank
from vrprm_reward.errors import StepError
from vrprm_reward.steps import (
    StepPart,
    StepSettings,
    join_steps,
    locate_steps,
    split_steps,
    split_with,
)
from vrprm_reward.types import Problem, Rollout, Step

MARKERS = ["<think>", "</think>", "<answer>", "</answer>"]
WHITESPACE = ["\n", "\n\n", "\r\n", "\r", " ", "\t", "\u3000", "\x85", "\x0b", "\x1c"]
WORDS = [
    "a",
    "Step 1: ",
    "Step",
    "step 2",
    "7",
    "步骤 2",
    "步骤",
    "- ",
    "-",
    "* ",
    "---",
    "😀",
    "é",
]
LISTS = ["3. ", "3)", "3.14 is pi", "**Step 3**", "### Step 3", "3.计"]
BLOCKS = ["```", "```py\n", "~~~", "$$", "\\[", "\\]", "\\begin{x}", "\\end{x}", "\\\\", "\\"]


def texts_of(*tokens: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(tokens) | st.text(max_size=2), max_size=25).map("".join)


def shows_something(text: str) -> bool:
    return not is_blank(text)


def no_markers(text: str) -> bool:
    return not any(marker in text for marker in MARKERS)


plain_texts = texts_of(*WHITESPACE, *WORDS, "<step split>").filter(no_markers)
responses = texts_of(*WHITESPACE, *WORDS, *LISTS, *BLOCKS, *MARKERS, "<step split>")
settings_values = st.builds(
    lambda rule, part: StepSettings(
        rule=rule, part=part, separator="--" if rule == "separator" else None
    ),
    st.sampled_from(["vrprm", "numbered", "protected", "separator"]),
    st.sampled_from(["all", "thinking", "answer"]),
)


def texts(response: str, rule: str = "vrprm", part: StepPart = "all") -> list[str]:
    settings = StepSettings.model_validate({"rule": rule, "part": part})
    return [step.text for step in split_steps(response, settings)]


def protocol_2_1(response: str) -> list[str]:
    """Section 2.1 of the protocol, on strings: it knows no positions and no markers."""
    text = response.replace("\r\n", "\n").strip()
    if "<step split>" in text:
        pieces = text.split("<step split>")
    else:
        blank_line, heading, line = r"\n\s*\n+", r"\n(?=Step\s*\d|步骤\s*\d|[-*]\s)", r"\n"
        for boundary in (blank_line, heading, line):
            pieces = re.split(boundary, text)
            if len(pieces) > 1:
                break
    return [piece.strip() for piece in pieces if not is_blank(piece)]


def without(response: str, steps: tuple[Step, ...]) -> str:
    characters = list(response)
    for step in steps:
        characters[step.start : step.end] = " " * (step.end - step.start)
    return "".join(characters)


@given(responses, settings_values)
def test_steps_are_ordered_disjoint_trimmed_places_in_the_response(response, settings):
    position = 0
    for step in split_steps(response, settings):
        assert position <= step.start < step.end
        assert step.text == response[step.start : step.end]
        assert step.text == step.text.strip()
        assert no_markers(step.text)
        position = step.end


@given(responses, st.sampled_from(["vrprm", "numbered", "protected", "separator"]))
def test_only_what_shows_nothing_markers_and_separators_belong_to_no_step(response, rule):
    settings = StepSettings(rule=rule, separator="--" if rule == "separator" else None)
    separators = {"separator": ["--"], "numbered": []}.get(rule, ["<step split>"])
    left = without(response, split_steps(response, settings))
    assert is_blank(re.sub("|".join([*MARKERS, *separators]), "", left))


@given(responses, settings_values)
def test_steps_of_any_rule_are_found_again_by_their_texts(response, settings):
    found = [step.text for step in split_steps(response, settings)]
    located = locate_steps(response, found)
    assert [step.text for step in located] == found
    problem = Problem(question="?", images=(b"image",))
    assert Rollout(problem=problem, response=response, steps=located).steps == located


@given(plain_texts)
@example("a\r\n-\r\nb")
@example("a\nb\n-")
@example("Step\r\n1\n步骤\u30002")
@example("a\n \r\n\x0b\nb\nc")
@example("<step split>a\n\nb")
@example("a\r\rb\r\r\nStep 1")
def test_the_vrprm_rule_without_markers_is_the_protocols_rule(response):
    assert [text.replace("\r\n", "\n") for text in texts(response)] == protocol_2_1(response)


@given(plain_texts.filter(lambda text: not set(text) & set("`~$\\")))
def test_the_protected_rule_is_the_vrprm_rule_where_nothing_is_protected(response):
    assert texts(response, "protected") == texts(response)


@given(plain_texts.filter(shows_something), plain_texts.filter(shows_something))
def test_thinking_and_answer_share_out_a_well_formed_response(thinking, answer):
    response = f"<think>{thinking}</think>{answer}"
    assert texts(response, part="thinking") == texts(thinking)
    assert texts(response, part="answer") == texts(answer)


code_lines = st.lists(
    st.sampled_from(["", "x = 1", "- item", "Step 2", "3. x", "$$", "  ", "<step split>"])
)


@given(
    st.sampled_from([("```python", "```"), ("~~~", "~~~~"), ("  ````", "  ````  ")]),
    code_lines,
    st.sampled_from(["\n", "\n\n", "\r\n"]),
    st.sampled_from(["protected", "numbered"]),
)
def test_fenced_code_is_never_divided(fences, lines, end, rule):
    block = "\n".join([fences[0], *lines, fences[1]]).strip()
    response = f"Before.{end}{block}{end}After."
    assert any(block in text for text in texts(response, rule))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("", []),
        (" \n\r\n\t", []),
        ("one step", ["one step"]),
        ("a\n\nb\n \t\nc", ["a", "b", "c"]),
        ("a\n\nStep 1: b\nStep 2: c", ["a", "Step 1: b\nStep 2: c"]),
        ("Look.\nStep 1: a\nmore\nStep 2: b", ["Look.", "Step 1: a\nmore", "Step 2: b"]),
        ("看图。\n步骤1：数数\n步骤 2：相加", ["看图。", "步骤1：数数", "步骤 2：相加"]),
        ("- a\n- b\n* c", ["- a", "- b", "* c"]),
        ("step 1\nstep 2\n\r\n", ["step 1", "step 2"]),
        ("a\n\n---\n\nb", ["a", "---", "b"]),
        ("a\n\nb <step split> c\n", ["a\n\nb", "c"]),
        ("```\nx\n\ny\n```", ["```\nx", "y\n```"]),
        ("\u3000答案是 5 😀\r\n\r\n完\u3000", ["答案是 5 😀", "完"]),
    ],
)
def test_the_vrprm_rule_uses_the_first_kind_of_cut_that_cuts(response, expected):
    assert texts(response) == expected


def test_spans_count_code_points_of_the_response_as_it_was_given():
    response = "\r\n😀 first\r\nline\r\n\r\n第二步 \r\n"
    assert split_steps(response) == (
        Step(text="😀 first\r\nline", start=2, end=15),
        Step(text="第二步", start=19, end=22),
    )


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("a\n\n```\nx\n\ny\n```\n\nb", ["a", "```\nx\n\ny\n```", "b"]),
        ("Code:\n~~~\n- x\n```\n- y\n~~~\nDone", ["Code:", "~~~\n- x\n```\n- y\n~~~", "Done"]),
        ("a\n\n```\nx\n\ny", ["a", "```\nx\n\ny"]),
        ("a\n\n```x``` inline\n\nb", ["a", "```x``` inline", "b"]),
        ("$$\nx\n\ny\n$$\n\nb", ["$$\nx\n\ny\n$$", "b"]),
        ("So \\[\nx\n\n\\\\[2pt] y \\]\n\nb", ["So \\[\nx\n\n\\\\[2pt] y \\]", "b"]),
        ("a \\\\[2pt]\n\nb \\]", ["a \\\\[2pt]", "b \\]"]),
        ("a \\[ b\n\nc", ["a \\[ b", "c"]),
        ("\\$$ a\n\nb $$", ["\\$$ a", "b $$"]),
        ("$$ x $$ y\n\nz $$", ["$$ x $$ y", "z $$"]),
        (
            "\\begin{a}\n\\begin{a}x\\end{a}\n\ny\n\\end{a}\nb",
            ["\\begin{a}\n\\begin{a}x\\end{a}\n\ny\n\\end{a}", "b"],
        ),
        ("\\begin{a}\n\n\\begin{b}\n\n\\end{b}", ["\\begin{a}", "\\begin{b}\n\n\\end{b}"]),
        ("$$ a\n\n```\n$$\n```\n\nb", ["$$ a", "```\n$$\n```", "b"]),
        ("a\nb\n```\n<step split>\n```", ["a", "b", "```\n<step split>\n```"]),
        ("<think>```\na\n\nb</think>c\n\nd", ["```\na\n\nb", "c", "d"]),
    ],
)
def test_the_protected_rule_keeps_fenced_code_and_display_latex_whole(response, expected):
    assert texts(response, "protected") == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Look.\n\nStep 1\na\n\nb\nStep 2: c", ["Look.", "Step 1\na\n\nb", "Step 2: c"]),
        ("**Step 1** a\r\n**Step 2** b", ["**Step 1** a", "**Step 2** b"]),
        ("### Step 1\na\n### Step 2\nb", ["### Step 1\na", "### Step 2\nb"]),
        ("## **STEP 1**\na\n# 2. b", ["## **STEP 1**\na", "# 2. b"]),
        ("步骤 1：数\n步骤2：加", ["步骤 1：数", "步骤2：加"]),
        ("1. a\n   1. nested\n2) b", ["1. a\n   1. nested", "2) b"]),
        ("1.\na\n2.**b**\n**3.** c", ["1.\na", "2.**b**", "**3.** c"]),
        ("1.计算面积\n2.求和", ["1.计算面积", "2.求和"]),
        ("3.14 is pi\n3.x is not\n1999. A year.", ["3.14 is pi\n3.x is not\n1999. A year."]),
        ("a\n\nb", ["a\n\nb"]),
        ("1. a\n```\n2. b\n```\n3. c", ["1. a\n```\n2. b\n```", "3. c"]),
        ("<think>1. a\n2. b</think>\n3. c", ["1. a", "2. b", "3. c"]),
    ],
)
def test_the_numbered_rule_cuts_before_numbered_headings(response, expected):
    assert texts(response, "numbered") == expected


@pytest.mark.parametrize(
    ("separator", "response", "expected"),
    [
        ("<s>", "<s>a\n\nb<s> <s>c", ["a\n\nb", "c"]),
        (".\n", "a.\nb.c.\n", ["a", "b.c"]),
        ("。", "一。二。三", ["一", "二", "三"]),
        (".*", "a.*b<think>c.d", ["a", "b", "c.d"]),
    ],
)
def test_the_separator_rule_cuts_at_the_literal(separator, response, expected):
    settings = StepSettings(rule="separator", separator=separator)
    assert [step.text for step in split_steps(response, settings)] == expected


@pytest.mark.parametrize(
    ("response", "thinking", "answer"),
    [
        ("a", [], ["a"]),
        ("<think>a</think>b", ["a"], ["b"]),
        ("a</think>b", ["a"], ["b"]),
        ("<think>a", ["a"], []),
        ("a</think>b</think>c", ["a"], ["c"]),
        ("z<think>a</think>b<think>c</think>d", ["a", "c"], ["d"]),
        ("<think>a</think>b<think>c", ["a", "c"], []),
        ("<think>a</think>b<answer>c</answer>d", ["a"], ["c"]),
        ("<think>a</think>b<answer>c", ["a"], ["c"]),
        ("<think>a<answer>b</answer>c</think>d</answer>", ["a", "b", "c"], ["d"]),
        ("a<answer>b</answer>c<answer>d</answer>", [], ["b", "d"]),
        ("a</answer>b", [], ["a", "b"]),
        ("<Think>a</ think>b", [], ["<Think>a</ think>b"]),
        ("<think></think>", [], []),
    ],
)
def test_markers_choose_thinking_and_answer(response, thinking, answer):
    assert texts(response, part="thinking") == thinking
    assert texts(response, part="answer") == answer


def test_markers_separate_steps_also_in_the_middle_of_a_line():
    assert texts("a <think>b</think> c<answer>d</answer>e") == ["a", "b", "c", "d", "e"]


def test_an_answer_does_not_keep_thinking_of_single_lines_in_one_piece():
    assert texts("<think>\na\nb\n</think>\n\n<answer>5</answer>") == ["a", "b", "5"]
    response = "<think>\nStep 1: a\nb\nStep 2: c\n</think>\nd\ne"
    assert texts(response) == ["Step 1: a\nb", "Step 2: c", "d\ne"]


def test_one_kind_of_cut_holds_for_all_regions():
    assert texts("<think>a\n\nb</think>So\n5") == ["a", "b", "So\n5"]
    assert texts("<think>a<step split>b</think>c\n\nd") == ["a", "b", "c\n\nd"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": "separator"}, "needs a non-empty separator, got None"),
        ({"rule": "separator", "separator": ""}, "needs a non-empty separator, got ''"),
        ({"separator": "x"}, "separator 'x' has no effect under rule \"vrprm\""),
        ({"rule": "lines"}, "'vrprm', 'numbered', 'protected' or 'separator'"),
        ({"part": "thoughts"}, "'all', 'thinking' or 'answer'"),
        ({"seperator": "x"}, "seperator"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        StepSettings.model_validate(values)


def test_settings_survive_a_round_trip_through_strings():
    settings = StepSettings(rule="separator", separator="\n\n", part="thinking")
    assert StepSettings.model_validate(settings.model_dump()) == settings


@given(responses)
def test_a_splitter_may_return_strings_or_spans(response):
    by_text = split_with(response, lambda text: text.split("\n"))
    by_span = split_with(response, lambda text: [m.span() for m in re.finditer("[^\n]+", text)])
    assert [step.text for step in by_text] == [step.text for step in by_span]
    assert all(step.text.strip() == step.text != "" for step in by_span)


def test_a_splitter_sees_each_region_of_its_part_and_may_leave_text_out():
    seen = []

    def sentences(text: str) -> list[str]:
        seen.append(text)
        return re.findall(r"[^.]+\.", text)

    response = "<think>One. Two. (rest)</think> <answer>Three.</answer>"
    steps = split_with(response, sentences)
    assert seen == ["One. Two. (rest)", "Three."]
    assert [(step.text, step.start) for step in steps] == [
        ("One.", 7),
        ("Two.", 12),
        ("Three.", 40),
    ]
    assert [step.text for step in split_with(response, sentences, part="answer")] == ["Three."]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([(0, 3), (2, 4)], "item 1 is (2, 4)"),
        ([(0, 9)], "within the 5 characters"),
        ([(3, 1)], "item 0 is (3, 1)"),
        (["ab", (2, 3)], "item 0 is 'ab'"),
        (["ab", "x"], "step 1 ('x') does not stand in the response"),
        ("ab cd", "got one string"),
    ],
)
def test_a_splitter_that_returns_something_else_is_told_so(returned, message):
    with pytest.raises(StepError, match=re.escape(message)):
        split_with("ab cd", lambda text: returned)


def test_ready_made_steps_are_located_in_order():
    assert locate_steps("a b a 😀", ["a", "a", "😀"]) == (
        Step(text="a", start=0, end=1),
        Step(text="a", start=4, end=5),
        Step(text="😀", start=6, end=7),
    )
    assert locate_steps("a", []) == ()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["a", "c" * 100], f"step 1 ('{'c' * 60}…') does not stand in the response"),
        (["b", "a"], "step 1 ('a') stands in the response only before the end of the step before"),
        (["a", " \n"], "step 1 is blank (' \\n'): leave blank steps out"),
        ("ab", "got one string ('ab'): put it in a list"),
    ],
)
def test_a_step_that_cannot_be_located_is_named(steps, message):
    with pytest.raises(StepError, match=re.escape(message)):
        locate_steps("a b", steps)


@given(st.lists(responses.filter(shows_something)))
def test_joined_steps_keep_their_texts_and_have_a_blank_line_between(steps):
    response, joined = join_steps(steps)
    assert [step.text for step in joined] == steps
    assert all(step.text == response[step.start : step.end] for step in joined)
    assert response == "\n\n".join(steps)


def test_a_blank_step_cannot_be_joined():
    with pytest.raises(StepError, match="step 1 is blank"):
        join_steps(["a", "\t"])


SIZE = 1_000_000


@pytest.mark.parametrize("rule", ["vrprm", "numbered", "protected", "separator"])
@pytest.mark.parametrize(
    "unit",
    [" ", "\n \t", "\\[", "\\begin{a}", "$$", "`", "<think>", "Step ", "#", "```\n", "\\[\n- "],
)
def test_a_megabyte_of_adversarial_text_is_split_in_linear_time(unit, rule):
    settings = StepSettings(rule=rule, separator="-\n" if rule == "separator" else None)
    response = "a\n" + unit * (SIZE // len(unit)) + "\nb"
    steps = split_steps(response, settings)
    assert (steps[0].start, steps[-1].end) == (0, len(response))
