"""What the training command refuses before it begins."""

import pytest
from typer import Typer
from typer.testing import CliRunner

from vrprm_reward.demo.train import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-thinking"], "can see with --start"),
        (["--first-stage", "frames"], "no stage 'frames': name one of look, see"),
        (
            ["--no-thinking", "--start", "x", "--first-stage", "polish"],
            "no stage 'polish': name one of count, claims",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_the_remedy(options, message, tmp_path):
    app = Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
