"""What `profile validate` finds in a profile that can be loaded."""

import re

import pytest

from tests.scoring.test_template import STRIPPING
from vrprm_reward import load_profile
from vrprm_reward.scoring.check import profile_notes, profile_problems
from vrprm_reward.scoring.profile import builtin_profiles


def changed(name, **updates):
    profile = load_profile(name)
    for key, value in updates.items():
        table, _, field = key.rpartition("__")
        if table:
            field, value = table, getattr(profile, table).model_copy(update={field: value})
        profile = profile.model_copy(update={field: value})
    return profile


@pytest.mark.parametrize("name", builtin_profiles())
def test_packaged_profiles_have_no_problems(name):
    assert profile_problems(load_profile(name)) == []
    assert profile_notes(load_profile(name)) == []


@pytest.mark.parametrize("name", ["two_stage", "answer_block", "boxed_continuation"])
def test_a_profile_without_thinking_and_one_with_the_answer_have_no_problems(name):
    assert profile_problems(changed(name, think=None)) == []
    assert profile_problems(changed(name, show_reference=True)) == []


def test_a_conversation_without_thinking_has_no_problems():
    assert profile_problems(changed("multi_turn", think=None)) == []


WRONG = {
    "no line breaks": (
        "two_stage",
        {"opening__gap": " "},
        r"the thinking request lacks the section \[Candidate Solution\]: .*opening.gap",
    ),
    "no line break before the history": (
        "multi_turn",
        {"think": None, "opening__gap": "", "opening__end": ""},
        r"the request about step 0 lacks the section \[Previous Step Judgments\]",
    ),
    "a marker in the task": (
        "answer_block",
        {"task": "Do it.\n[Question]\nagain"},
        r"has the marker \[Question\] on 2 lines instead of 1",
    ),
    "stripping template": ("multi_turn", {"conversation": STRIPPING}, "conversation: it deletes"),
    "broken template": ("two_stage", {"conversation": "{{"}, "conversation: the template fails"),
}


@pytest.mark.parametrize(("name", "updates", "problem"), WRONG.values(), ids=WRONG.keys())
def test_each_problem_names_the_request_and_the_key(name, updates, problem):
    assert any(re.search(problem, found) for found in profile_problems(changed(name, **updates)))


@pytest.mark.parametrize(
    ("name", "updates", "key"),
    [
        ("answer_block", {"judge__request": "Say 1."}, "judge.request"),
        ("multi_turn", {"judge__system": "Be strict."}, "judge.system"),
        ("score_json", {"judge__show_history": False}, "judge.show_history"),
        ("multi_turn", {"judge__images": "each"}, "judge.images"),
        ("two_stage", {"task": "Do it."}, "task"),
        ("answer_block", {"placeholder": "keep"}, "placeholder"),
        ("boxed_continuation", {"steps__form": "split", "steps__label": "always"}, "steps.label"),
    ],
)
def test_a_key_that_changes_nothing_is_noted(name, updates, key):
    (note,) = profile_notes(changed(name, **updates))
    assert note.startswith(f"{key} is set, but changes no request of the frame ")


def test_a_shown_reference_answer_is_noted():
    (note,) = profile_notes(changed("two_stage", show_reference=True))
    assert "not comparable" in note
