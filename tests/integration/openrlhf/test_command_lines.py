"""Every OpenRLHF command line in the documents, through OpenRLHF's own parser and checks."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import ROOT

DOCUMENT = ROOT / "docs" / "openrlhf.md"
SCRIPT = ROOT / "examples" / "openrlhf" / "train.sh"
MODULE = "openrlhf.cli.train_ppo_ray"
BLOCKS = re.findall(
    r"^```\w*\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
LINES = [block for block in BLOCKS if MODULE in block]


def arguments_of(block):
    """What stands behind the module's name in a block of shell code."""
    text = block.replace("\\\n", " ")
    line = next(each for each in text.splitlines() if MODULE in each)
    words = shlex.split(line.partition(MODULE)[2])
    folder = ROOT / "adapters" / "vrprm_openrlhf"
    files = {
        "$(vrprm-reward openrlhf path agent)": str(folder / "agent.py"),
        "$(vrprm-reward openrlhf path reward)": str(folder / "reward_func.py"),
    }
    return [files.get(word, word) for word in words]


@pytest.fixture
def parse(monkeypatch):
    """Run `train_ppo_ray` up to the point where it would train; the arguments it ended with."""
    import ray

    class WouldTrainError(Exception):
        pass

    def run(arguments):
        kept = {}

        def stop(*_, **__):
            frame = sys._getframe(1)
            kept["args"] = frame.f_locals["args"]
            raise WouldTrainError

        monkeypatch.setattr(ray, "is_initialized", stop)
        monkeypatch.setattr(sys, "argv", ["train_ppo_ray", *arguments])
        with pytest.raises(WouldTrainError):
            runpy.run_module(MODULE, run_name="__main__")
        return kept["args"]

    return run


def test_all_command_lines_of_the_document_are_found():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(LINES) == text.count("parsed by a test") == 5


@pytest.mark.parametrize("block", LINES, ids=range(len(LINES)))
def test_a_command_line_of_the_document_is_one_that_openrlhf_takes(parse, block):
    args = parse(arguments_of(block))
    assert args.data.label_key == "label"
    assert args.data.max_images_per_prompt == 1
    given = [args.train.agent_func_path] if args.train.agent_func_path else args.reward.remote_url
    assert all(each.startswith("http://") or Path(each).is_file() for each in given)


@pytest.mark.parametrize("mode", ["scalar", "dense"])
def test_the_launch_script_is_one_that_openrlhf_takes(parse, mode, tmp_path):
    printer = tmp_path / "python3"
    printer.write_text('#!/bin/sh\necho "$RAY_RUNTIME_ENV_HOOK"\nprintf "%s\\n" "$@"\n')
    command = tmp_path / "vrprm-reward"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vrprm_reward.cli "$@"\n')
    for file in (printer, command):
        file.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHON": str(printer),
        "REWARD_URL": "http://reward:8000",
    }
    ended = subprocess.run(
        ["bash", SCRIPT, mode],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    hook, *words = ended.stdout.splitlines()
    assert hook == ("vrprm_openrlhf.runtime_env_hook" if mode == "dense" else "")
    assert words[:2] == ["-m", MODULE]
    args = parse(words[2:])
    assert Path(args.train.agent_func_path).is_file()
    assert args.algo.advantage.estimator == "reinforce_baseline"


def test_the_settings_in_the_documents_are_settings():
    from vrprm_openrlhf.settings import Settings
    from vrprm_reward.rewards.combine import RewardRule

    known = {name.upper() for name in {*Settings.model_fields, *RewardRule.model_fields} - {"rule"}}
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"VRPRM_OPENRLHF_([A-Z_]+)", text + SCRIPT.read_text(encoding="utf-8")))
    table = text.partition("| `VRPRM_OPENRLHF_…` |")[2].partition("\n\n")[0]
    listed = {
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([A-Z_]+)`", row.split("|")[1])
    }
    assert named <= known
    assert listed == known
