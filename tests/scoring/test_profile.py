"""Profiles: what is packaged, and what each wrong file answers."""

import pytest

from vrprm_reward import load_profile
from vrprm_reward.errors import ProfileError
from vrprm_reward.scoring.profile import builtin_profiles


@pytest.fixture
def write(tmp_path):
    def write_profile(text: str):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_profile


@pytest.mark.parametrize("name", builtin_profiles())
def test_every_packaged_profile_loads_under_its_own_name(name):
    assert load_profile(name).name == name


def test_a_profile_may_extend_another_and_change_single_keys(write):
    path = write('extends = "two_stage"\nname = "mine"\n[think]\nmax_tokens = 7\n')
    mine, base = load_profile(path), load_profile("two_stage")
    assert mine.think is not None
    assert base.think is not None
    assert mine.think.max_tokens == 7
    assert mine.think.system == base.think.system
    assert mine.conversation == base.conversation


def test_a_profile_may_do_without_the_thinking_of_the_one_it_extends(write, tmp_path):
    silent = write('extends = "answer_block"\nname = "silent"\nthink = false\n')
    assert load_profile(silent).think is None
    again = tmp_path / "again.toml"
    again.write_text(f'extends = "{silent.name}"\nname = "again"\n[think]\nmax_tokens = 7\n')
    found = load_profile(again).think
    assert found is not None
    assert found.max_tokens == 7


def test_a_profile_may_begin_with_a_byte_order_mark(write, tmp_path):
    base = write('\ufeffextends = "two_stage"\nname = "base"\n[think]\nmax_tokens = 7\n')
    mine = tmp_path / "over.toml"
    mine.write_text(f'\ufeffextends = "{base.name}"\nname = "over"\n', encoding="utf-8")
    profile = load_profile(mine)
    assert profile.name == "over"
    assert profile.think is not None
    assert profile.think.max_tokens == 7


def test_a_conversation_template_may_stand_in_a_file_beside_the_profile(write, tmp_path):
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    path = write('extends = "two_stage"\nname = "mine"\nconversation = "own.jinja"\n')
    assert load_profile(path).conversation == "{{ messages }}"
    (tmp_path / "own.jinja").write_text("\ufeff{{ messages }}", encoding="utf-8")
    assert load_profile(path).conversation == "{{ messages }}"


WRONG = {
    "unknown frame": ('frame = "three_stage"', "frame: .*'two_stage'"),
    "unknown key": ("imagse = 'before'", "imagse: Extra inputs"),
    "wrong type": ("[think]\nmax_tokens = 'many'", "think.max_tokens"),
    "zero steps": ("[steps]\nmax_steps = 0", "steps.max_steps"),
    "marker of two lines": ('[sections]\nquestion = "a\\nb"', "one non-blank line"),
    "equal markers": ('[sections]\nquestion = "[Current Step]"', "differ from one another"),
    "history without verdict": ('[judge]\nhistory_line = "Step {number}"', "history_line"),
    "history with a typo": ('[judge]\nhistory_line = "{numbr} {verdict}"', "history_line"),
    "no such template": ('conversation = "gone.jinja"', "no readable file 'gone.jinja'"),
    "marker over a line separator": ('[sections]\nquestion = "a\\u2028b"', "one non-blank line"),
    "images after what a policy wrote": (
        'images = "inline"\n[opening]\norder = ["solution", "question"]',
        "question first",
    ),
    "impossible pixels": ("[pixels]\nmin_pixels = 9\nmax_pixels = 4", "pixels"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_profile_names_the_key(write, text, message):
    path = write(f'extends = "two_stage"\nname = "mine"\n{text}\n')
    with pytest.raises(ProfileError, match=message):
        load_profile(path)


def test_what_is_no_profile_at_all_is_refused(write):
    with pytest.raises(ProfileError, match=r"no profile 'nothing'.*two_stage"):
        load_profile("nothing")
    with pytest.raises(ProfileError, match="not valid TOML"):
        load_profile(write("frame ="))
    with pytest.raises(ProfileError, match="frame two_stage needs judge"):
        load_profile(write('name = "x"\nframe = "two_stage"\nconversation = ""\n'))


def test_profiles_that_extend_each_other_are_refused(tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text(f'extends = "{other}"')
    other.write_text(f'extends = "{one}"')
    with pytest.raises(ProfileError, match="circle"):
        load_profile(one)
