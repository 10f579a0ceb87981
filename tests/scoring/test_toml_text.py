"""A profile written as TOML reads back to the same profile."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrprm_reward import load_profile
from vrprm_reward.scoring.profile import Judging, Profile, Thinking, builtin_profiles
from vrprm_reward.scoring.toml_text import profile_toml


@pytest.mark.parametrize("name", builtin_profiles())
def test_every_packaged_profile_reads_back(name, tmp_path):
    path = tmp_path / "copy.toml"
    path.write_bytes(profile_toml(load_profile(name), ["a comment\nof two lines"]).encode())
    assert load_profile(path) == load_profile(name)


signs = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("'\"\\\n\r\t\0\x7f")))


@given(signs, signs, signs)
def test_any_text_reads_back(task, system, request):
    profile = Profile(
        name="x",
        frame="multi_turn",
        conversation=task,
        task=task,
        think=Thinking(system=system),
        judge=Judging(request="?" + request),
    )
    text = profile_toml(profile).encode().decode()
    assert Profile.model_validate(tomllib.loads(text)) == profile


def test_long_texts_and_backslashes_stay_readable():
    profile = Profile(
        name="x", frame="answer_block", conversation="a\n{{ 'b\\n' }}\n", task="say \\boxed{1}"
    )
    text = profile_toml(profile)
    assert "conversation = '''\na\n{{ 'b\\n' }}\n'''" in text
    assert "task = 'say \\boxed{1}'" in text
    assert "[think]" not in text
    assert 'gap = "\\n"' in text
