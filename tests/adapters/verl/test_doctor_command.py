"""`vrprm-reward doctor verl` where it cannot work."""

import importlib.util

import pytest
from typer.testing import CliRunner

from vrprm_reward.cli import app


@pytest.mark.skipif(importlib.util.find_spec("verl") is not None, reason="verl is installed here")
def test_without_verl_it_says_where_to_run_it():
    done = CliRunner().invoke(app, ["doctor", "verl"])
    assert done.exit_code == 2
    assert "No module named 'verl'" in done.output
    assert "in the environment of the training" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["openrhlf"], "'openrhlf' is not examined; choose one of verl"),
        (["--config", "run.yaml"], "vrprm-reward doctor verl --config FILE"),
    ],
)
def test_wrong_arguments_are_named_with_what_would_be_right(arguments, words):
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
