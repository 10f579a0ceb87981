import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.commands.processes import finished
from tests.commands.scoring import plain, run
from vrprm_reward.version import VERSION


class TestHelp:
    def test_help_names_the_commands(self) -> None:
        result = run("--help")
        assert result.exit_code == 0
        assert "Score the steps of rollouts" in plain(result.stdout)

    @pytest.mark.parametrize("columns", [60, 80, 120])
    def test_the_help_of_score_has_examples_and_exit_statuses(self, columns: int) -> None:
        text = plain(run("score", "-h", columns=columns).stdout)
        assert "vrprm-reward score rollouts.jsonl -o scores.jsonl --model ./vrprm-4b" in text
        assert r"--separator '\n'" in text
        assert "1 some rows are bad or unscored" in text
        assert "[cyan]" not in text

    def test_no_arguments_show_the_help(self) -> None:
        assert "Usage" in run().stdout


NOT_INSTALLED = """
from importlib import metadata

real = metadata.Distribution.from_name

def hidden(name):
    if name.startswith("vrprm"):
        raise metadata.PackageNotFoundError(name)
    return real(name)

metadata.Distribution.from_name = hidden
from vrprm_reward.cli import app
app(["--version"])
"""


class TestAsAProcess:
    def test_a_source_tree_that_is_not_installed_knows_its_version(self) -> None:
        status, out, err = finished("-c", NOT_INSTALLED)
        assert (status, err) == (0, "")
        assert out == f"vrprm-reward {VERSION}\n"

    def test_the_version_is_that_of_the_installed_package(self) -> None:
        assert metadata.version("vrprm-reward") == VERSION

    def test_the_installed_script_shows_the_help(self) -> None:
        script = Path(sys.executable).with_name("vrprm-reward")
        status, out, _ = finished(str(script), "--help")
        assert status == 0
        assert "score" in out

    def test_help_needs_neither_torch_nor_transformers(self) -> None:
        code = (
            "import sys, vrprm_reward.cli; "
            "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
        )
        assert finished("-c", code)[1] == "[]\n"

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("vrprm-reward sc", ["score"]),
            ("vrprm-reward score --pro", ["--profile"]),
            ("vrprm-reward score --split ", ["vrprm", "numbered", "protected", "separator"]),
            ("vrprm-reward score --profile two", ["two_stage"]),
        ],
    )
    def test_the_shell_completes_commands_options_and_values(
        self, words: str, expected: list[str]
    ) -> None:
        code = "import sys; sys.argv[0] = 'vrprm-reward'; from vrprm_reward.cli import app; app()"
        _, out, _ = finished(
            "-c",
            code,
            env={
                "_VRPRM_REWARD_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
            },
        )
        assert out.split() == expected
