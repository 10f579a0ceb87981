"""Finding prompts in a checkout without running it, and what becomes of a broken one."""

import os

import pytest

from tests.scoring.checkout import REGISTRY, TEXTS, write_checkout
from vrprm_reward.errors import InputError
from vrprm_reward.scoring.check import profile_problems
from vrprm_reward.scoring.official import find
from vrprm_reward.scoring.official.find import find_constants
from vrprm_reward.scoring.official.importer import import_profiles
from vrprm_reward.scoring.official.registry import REGISTRY as OFFICIAL
from vrprm_reward.scoring.official.registry import Constant, fingerprint


@pytest.fixture
def checkout(tmp_path):
    return write_checkout(tmp_path / "checkout")


def one(text: str) -> list[Constant]:
    return [Constant("wanted", len(text), fingerprint(text), "")]


def test_every_text_is_found_with_its_places(checkout):
    findings = find_constants(checkout, REGISTRY)
    assert findings.texts == TEXTS
    assert list(map(str, findings.places["global_think"])) == [
        "bench/again.py:1",
        "bench/evaluate.py:6",
    ]
    assert (findings.files, findings.skipped) == (9, {})


def test_a_complete_checkout_gives_every_profile_and_each_is_fine(checkout):
    report = import_profiles(checkout, REGISTRY)
    assert (report.missing, report.left_out) == ((), {})
    assert [w.profile.name for w in report.profiles if profile_problems(w.profile)] == []


def test_an_import_is_the_same_each_time_and_says_where_the_wording_is_from(checkout):
    first, second = (import_profiles(checkout, REGISTRY).profiles for _ in range(2))
    assert first == second
    assert first[0].text.startswith("# Written by `vrprm-reward profile import`.")
    assert "# global_think (67 characters, " in first[0].text
    assert "): bench/again.py:1\n" in first[0].text


def test_a_profile_whose_text_is_missing_is_left_out_with_its_name(checkout):
    (checkout / "rl" / "v2.jinja").unlink()
    (checkout / "bench" / "score.py").unlink()
    report = import_profiles(checkout, REGISTRY)
    assert list(report.left_out) == [
        "vrprm-answer-block-v2",
        "vrprm-score-json-short",
        "vrprm-boxed-continuation",
    ]
    assert report.left_out["vrprm-boxed-continuation"] == "warm_up (21 characters) is missing"
    assert report.blocking == {"answer_format_v2", "score_json_short", "warm_up"}


def test_the_closing_sentence_is_also_found_inside_a_steps_turn(checkout):
    (checkout / "bench" / "evaluate.py").unlink()
    report = import_profiles(checkout, REGISTRY)
    (multi_turn,) = [w for w in report.profiles if w.profile.name == "vrprm-multi-turn"]
    assert multi_turn.profile.judge.request == "Does it hold? Say 1 or 0."
    assert "# step_turn (102 characters, " in multi_turn.text
    assert "step_request" not in report.blocking


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("step_turn", "[Current Step]\n{current_step}\nSay 1.", "does not begin with the sections"),
        ("answer_format_v1", "{% if x %}{{ content }}{% endif %}", "does more than append"),
        ("answer_format_v1", "{{ content | upper }} tell", "does more than append"),
        ("answer_format_v1", "{{ content | trim }} {{ more }}", "does more than append"),
    ],
)
def test_a_text_that_is_not_built_as_expected_is_refused(tmp_path, name, text, why):
    write_checkout(tmp_path)
    (tmp_path / "bench" / "evaluate.py").unlink()
    (tmp_path / "data" / "builder.py").write_text(
        f"TURN = {TEXTS['step_turn']!r}\nMORE = {TEXTS['multi_turn_think']!r}\n"
    )
    registry = [c for c in REGISTRY if c.name != name]
    registry.append(Constant(name, len(text), fingerprint(text), ""))
    (tmp_path / "new.py").write_text(f"X = {text!r}\n")
    assert any(why in reason for reason in import_profiles(tmp_path, registry).left_out.values())


PYTHON = {
    "implicit concatenation": "x = ('ab '\n     'cd')",
    "explicit concatenation": "x = 'ab' + (' ' + 'cd')",
    "parentheses": "x = (((\n'ab cd'\n)))",
    "dedent": "import textwrap\nx = textwrap.dedent('''\\\n  ab cd''')",
    "imported dedent": "from textwrap import dedent\nx = dedent('  ab cd\\n').strip()",
    "cleandoc": "import inspect\nx = inspect.cleandoc('''\n   ab cd\n   ''')",
    "join": "x = ' '.join(['ab', 'cd'])",
    "strip": "x = '\\n ab cd'.lstrip()",
    "class level": "class A:\n    class B:\n        x = 'ab cd'",
    "argument": "def f(x='ab cd'): pass",
    "docstring": "def f():\n    'ab cd'",
    "f-string without fields": "x = f'ab' f' cd'",
    "piece of an f-string": "x = f'{y}\\nab cd\\n{z}'",
    "behind a marker line": "x = f'{y}\\n\\n[Task]\\nab cd'",
    "dictionary": "x = {'ab cd': 1}",
    "CRLF": "x = '''ab cd'''\r\n",
    "invalid escape": "y = '\\d'\nx = 'ab cd'",
    "byte order mark": "\ufeffx = 'ab cd'",
}


@pytest.mark.parametrize("source", PYTHON.values(), ids=PYTHON.keys())
def test_a_text_is_found_however_it_is_written(tmp_path, source):
    (tmp_path / "a.py").write_bytes(source.encode())
    assert find_constants(tmp_path, one("ab cd")).texts == {"wanted": "ab cd"}


def test_line_ends_of_windows_do_not_change_a_text(tmp_path):
    (tmp_path / "a.py").write_bytes(b"x = '''ab\r\ncd'''\r\n")
    (tmp_path / "b.txt").write_bytes(b"ab\r\ncd\r\n")
    places = find_constants(tmp_path, one("ab\ncd")).places["wanted"]
    assert list(map(str, places)) == ["a.py:1", "b.txt:1"]


@pytest.mark.parametrize(
    "source",
    ["x = 'ab' + y + ' cd'", "x = f'ab {c}d'", "x = 'ab cd!'", "x = b'ab cd'", "# ab cd"],
)
def test_what_only_looks_alike_is_not_found(tmp_path, source):
    (tmp_path / "a.py").write_text(source)
    assert find_constants(tmp_path, one("ab cd")).texts == {}


def test_files_that_cannot_be_read_are_reported_and_the_rest_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "MAX_FILE_BYTES", 400)
    (tmp_path / "latin.py").write_bytes("x = 'é'".encode("latin-1"))
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "null.py").write_bytes(b"x = '\0'\n")
    (tmp_path / "deep.py").write_text("x = " + "-" * 300 + "1\n")
    (tmp_path / "large.txt").write_text("x" * 500)
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.py").write_text("x = 'ab cd'")
    (tmp_path / "z.py").write_text("x = 'ab cd'")
    findings = find_constants(tmp_path, one("ab cd"))
    assert list(map(str, findings.places["wanted"])) == ["z.py:1"]
    reasons = {name: why.split(":")[0] for name, why in findings.skipped.items()}
    reasons.pop("deep.py", None)
    assert reasons == {
        "round": "is a link to a folder",
        "broken.py": "is not valid Python",
        "gone.txt": "is not a file, or a link that leads nowhere",
        "large.txt": "is larger than 400 bytes",
        "latin.py": "is not UTF-8",
        "loop.py": "is not a file, or a link that leads nowhere",
        "null.py": reasons["null.py"],
    }
    assert reasons["null.py"].startswith(("is not valid Python", "cannot be parsed"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_reported(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert find_constants(tmp_path).skipped == {"closed": "Permission denied"}


def test_a_single_file_may_be_searched(checkout):
    findings = find_constants(checkout / "bench" / "again.py", REGISTRY)
    assert list(findings.texts) == ["global_think"]


def test_a_path_that_is_not_there_and_a_folder_too_large_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no folder or file .*pass a checkout"):
        find_constants(tmp_path / "gone")
    monkeypatch.setattr(find, "MAX_FILES", 1)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="more than 1 Python and template files"):
        find_constants(tmp_path)


def test_the_official_registry_names_each_text_once():
    assert len({c.name for c in OFFICIAL}) == len({(c.chars, c.sha256) for c in OFFICIAL}) == 17
    assert {c.name for c in OFFICIAL} == set(TEXTS)
    assert all(len(c.sha256) == 16 for c in OFFICIAL)
