"""`vrprm-reward profile` and `vrprm-reward chat-template`, as a user calls them."""

import tomllib

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.scoring.checkout import REGISTRY, write_checkout
from tests.scoring.test_template import STRIPPING
from vrprm_reward import load_profile
from vrprm_reward.commands import profile as commands
from vrprm_reward.scoring.official.importer import import_profiles

app = Typer()
app.add_typer(commands.app, name="profile")
app.command("chat-template")(commands.chat_template)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "import_profiles", lambda path: import_profiles(path, REGISTRY))

    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def checkout(tmp_path):
    return write_checkout(tmp_path / "checkout")


def test_show_prints_the_merged_profile_as_toml_that_can_be_used(call, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "demo"\nname = "mine"\n[think]\nmax_tokens = 7\n'
    )
    status, out, _ = call("profile", "show", "mine.toml")
    assert status == 0
    assert tomllib.loads(out)["think"]["max_tokens"] == 7
    assert tomllib.loads(out)["pixels"]["max_pixels"] == 9216
    (tmp_path / "copy.toml").write_text(out)
    assert load_profile(tmp_path / "copy.toml") == load_profile(tmp_path / "mine.toml")


def test_import_says_what_was_found_writes_profiles_and_repeats_itself(call, checkout, tmp_path):
    status, out, err = call("profile", "import", checkout)
    assert (status, err) == (0, "")
    assert "found global_think: bench/again.py:1 and 1 more\n" in out
    assert "wrote vrprm-profiles/vrprm-two-stage.toml\n" in out
    assert "missing" not in out
    assert len(list((tmp_path / "vrprm-profiles").iterdir())) == 13
    assert call("profile", "import", checkout) == (status, out, err)
    assert call("profile", "validate", "vrprm-profiles/vrprm-two-stage.toml")[0] == 0


def test_import_of_a_part_writes_what_it_can_and_names_what_is_missing(call, checkout, tmp_path):
    (checkout / "rl" / "v2.jinja").unlink()
    (checkout / "bench" / "again.py").write_text("def (")
    status, out, err = call("profile", "import", checkout, "-o", "out")
    assert status == 1
    assert "missing answer_format_v2: made-up answer_format_v2; 65 characters, sha256 " in out
    assert "left out vrprm-answer-block-v2: answer_format_v2 (65 characters) is missing\n" in out
    assert "skipped: bench/again.py is not valid Python: " in err
    assert len(list((tmp_path / "out").iterdir())) == 12


def test_a_constant_that_nothing_waits_for_is_marked_as_not_needed(call, checkout):
    (checkout / "data" / "builder.py").write_text(
        "A = 'First think, then one turn per step.'\nB = 'One turn per step, at once.'\n"
    )
    status, out, _ = call("profile", "import", checkout)
    assert status == 0
    assert "missing step_turn: made-up step_turn; " in out
    assert "… (not needed)\n" in out


def test_import_replaces_a_file_that_differs_only_when_told(call, checkout, tmp_path):
    target = tmp_path / "vrprm-profiles" / "vrprm-score-list.toml"
    target.parent.mkdir()
    target.write_text("mine")
    status, _, err = call("profile", "import", checkout)
    assert status == 2
    assert "exists and differs: pass --overwrite" in err
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert call("profile", "import", checkout, "--overwrite")[0] == 0
    assert load_profile(target).name == "vrprm-score-list"


@pytest.mark.parametrize("where", ["gone", "empty"])
def test_import_of_nothing_is_an_error(call, tmp_path, where):
    (tmp_path / "empty").mkdir()
    status, _, err = call("profile", "import", where)
    assert status == 2
    assert err.startswith("error: no ")
    assert not (tmp_path / "vrprm-profiles").exists()


def test_import_into_a_file_is_an_error(call, checkout, tmp_path):
    (tmp_path / "taken").write_text("")
    status, _, err = call("profile", "import", checkout, "-o", "taken")
    assert status == 2
    assert "is a file: pass a folder" in err


def test_validate_says_that_a_good_profile_is_fine(call):
    assert call("profile", "validate", "multi_turn") == (
        0,
        "multi_turn: fine (frame multi_turn, 4 requests tried)\n",
        "",
    )


def test_validate_lists_problems_of_a_profile_that_can_be_loaded(call, tmp_path):
    (tmp_path / "strips.jinja").write_text(STRIPPING)
    (tmp_path / "mine.toml").write_text(
        'extends = "multi_turn"\nname = "mine"\nshow_reference = true\n'
        'conversation = "strips.jinja"\n[opening]\ngap = " "\n'
    )
    status, out, err = call("profile", "validate", "mine.toml")
    assert (status, out) == (1, "")
    assert "problem: conversation: it deletes thinking in earlier assistant turns" in err
    assert "problem: the request about step 0 lacks the section [Current Step]" in err
    assert "note: the reference answer is shown" in err


UNUSABLE = {
    "frame": ('frame = "three_stage"', "frame: Input should be 'two_stage'"),
    "missing marker": ('[sections]\ncurrent = " "', "a section marker is one non-blank line"),
    "regex": ('[judge]\nanalysis_line = "Step ("', "analysis_line is not a regular expression"),
    "regex without number": ('[judge]\nanalysis_line = "Step"', "needs one group"),
    "format string": ('[judge]\nhistory_line = "{number"', "not a usable format string"),
    "history of two lines": (
        '[judge]\nhistory_line = "{number}\\n{verdict}"',
        "history_line must be one line",
    ),
    "no solution": ('[opening]\norder = ["question"]', "opening.order lacks 'solution'"),
    "no reference": (
        'show_reference = true\n[opening]\norder = ["question", "solution"]',
        "opening.order lacks 'reference'",
    ),
    "equal delimiters": ('[think]\nopening = "|"\nclosing = "|"', "they must differ"),
    "extends": ("extends = 3", "extends is 3: it takes the name"),
    "not TOML": ("[", "is not valid TOML"),
    "not UTF-8": ("\udcff", "cannot be read"),
    "template not UTF-8": ('conversation = "bad.jinja"', "no readable file 'bad.jinja'"),
}


@pytest.mark.parametrize(("text", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_validate_says_why_a_profile_cannot_be_loaded(call, tmp_path, text, message):
    (tmp_path / "bad.jinja").write_bytes(b"\xff")
    head = "" if text.startswith("extends") else 'extends = "two_stage"\n'
    (tmp_path / "mine.toml").write_bytes(f"{head}{text}\n".encode(errors="surrogateescape"))
    status, out, err = call("profile", "validate", "mine.toml")
    assert (status, out) == (2, "")
    assert err.startswith("error: profile 'mine.toml'")
    assert message in err


def test_a_profile_may_extend_a_file_beside_it_from_anywhere(call, tmp_path):
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "base.toml").write_text('extends = "demo"\nname = "base"\n')
    (folder / "mine.toml").write_text('extends = "base.toml"\nname = "mine"\n')
    assert call("profile", "validate", "far/mine.toml")[0] == 0


def test_chat_template_prints_or_writes_the_template(call, tmp_path):
    template = load_profile("two_stage").conversation
    assert call("chat-template") == (0, template, "")
    assert call("chat-template", "--profile", "demo", "-o", "t.jinja") == (0, "", "")
    assert (tmp_path / "t.jinja").read_text() == template
    assert call("chat-template", "--profile", "nothing")[0] == 2
    assert call("chat-template", "-o", "-") == (0, template, "")
    assert not (tmp_path / "-").exists()


def test_a_template_file_of_someone_elses_is_not_replaced_unasked(call, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("mine")
    status, _, said = call("chat-template", "-o", path)
    assert (status, path.read_text()) == (2, "mine")
    assert "--overwrite" in said
    assert call("chat-template", "-o", path, "--overwrite")[0] == 0
    assert call("chat-template", "-o", path)[0] == 0  # the same again
    assert path.read_text() == load_profile("two_stage").conversation


def test_a_template_does_not_replace_the_profile_it_comes_from(call, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "demo"\nname = "mine"\n')
    before = path.read_text()
    status, _, said = call("chat-template", "--profile", path, "-o", "mine.toml", "--overwrite")
    assert (status, path.read_text()) == (2, before)
    assert "is the profile: choose another place with --output" in said


def test_profiles_go_to_a_folder_and_not_to_one_named_like_standard_output(
    call, checkout, tmp_path
):
    status, _, said = call("profile", "import", checkout, "-o", "-")
    assert status == 2
    assert "pass a folder with --output" in said
    assert not (tmp_path / "-").exists()
