"""That verl loads this package by itself, and that `doctor verl` says what is and what is not."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.integration.processes import ROOT
from vrprm_reward.errors import InputError

PROBE = """
import pickle, sys
{first}
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as estimators
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry as loops
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
assert "vrprm_leave_one_out" in estimators, sorted(estimators)
assert loops["vrprm_tool_agent"]["_target_"] == "vrprm_verl.agent_loop.VRPRMToolAgentLoop"
assert get_reward_manager_cls("vrprm").__module__ == "vrprm_verl.reward"
from vrprm_verl.plugin import failures
assert failures == {{}}, failures
"""


def python(*arguments, **variables):
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=240,
    )


@pytest.fixture
def installed(tmp_path):
    """The package's metadata as an installer leaves them, entry points included."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "vrprm_reward-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vrprm-reward\nVersion: 0.1.0\n")
    lines = [f"{name} = {to}" for name, to in project["entry-points"]["verl.plugins"].items()]
    (folder / "entry_points.txt").write_text("\n".join(["[verl.plugins]", *lines]))
    return os.pathsep.join(
        [str(tmp_path), str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")]
    )


def test_the_entry_point_loads_everything_in_any_process(installed):
    done = python(
        "-c",
        PROBE.format(first="import verl"),
        PYTHONPATH=installed,
        VERL_USE_EXTERNAL_MODULES=None,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_worker_that_meets_our_classes_before_it_knows_verl_loads_everything_too(installed):
    first = "import vrprm_verl.agent_loop"
    done = python(
        "-c",
        PROBE.format(first=first),
        PYTHONPATH=installed,
        VERL_USE_EXTERNAL_MODULES="vrprm_verl",
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_both_patches_can_be_made_while_verl_is_being_imported(installed):
    done = python(
        "-c",
        PROBE.format(first="import verl")
        + "from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, AgentLoopWorker\n"
        "from verl.trainer.ppo.v1.trainer_base import PPOTrainer\n"
        "from vrprm_verl.patches import is_patched\n"
        "assert is_patched(AgentLoopOutput, 'as_dict')\n"
        "assert is_patched(AgentLoopWorker, '_postprocess')\n"
        "assert is_patched(PPOTrainer, '_compute_metrics')\n",
        PYTHONPATH=installed,
        VERL_USE_EXTERNAL_MODULES="vrprm_verl",
        VRPRM_VERL_PATCHES="fallback,metrics",
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_doctor_says_what_is_loaded_in_which_process():
    done = python(
        "-m", "vrprm_reward.cli", "doctor", "verl", VERL_USE_EXTERNAL_MODULES="vrprm_verl"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "verl: 0.9.1",
        "by VERL_USE_EXTERNAL_MODULES",
        "estimators: vrprm_group_mean, vrprm_leave_one_out, vrprm_process_grpo, vrprm_same_step, "
        "vrprm_sound_prefix",
        "reward manager: vrprm",
        "agent loops: vrprm_single_turn_agent, vrprm_tool_agent",
    ):
        assert words in done.stdout


WRONG = {
    "reward_model": {"reward_manager": "vrprm", "enable": None},
    "custom_reward_function": {"path": None},
    "reward": {
        "reward_manager": {"name": "naive"},
        "reward_model": {"enable": True, "enable_resource_pool": True},
        "custom_reward_function": {"path": None},
        "vrprm": {"combinaton": "sum"},
    },
    "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": True},
    "trainer": {"use_v1": True},
    "actor_rollout_ref": {"rollout": {"agent": {"default_agent_loop": "single_turn_agent"}}},
}


def test_doctor_says_what_to_export_where_nothing_is_loaded_and_names_every_wrong_setting(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(WRONG))
    done = python(
        *("-m", "vrprm_reward.cli", "doctor", "verl", "--config", str(tmp_path / "config.yaml")),
        VERL_USE_EXTERNAL_MODULES=None,
        VERL_USE_EXTERNAL_PLUGINS="none",  # an installed package has an entry point
    )
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("no")]
    for words in (
        "export VERL_USE_EXTERNAL_MODULES=vrprm_verl",
        "reward_model.reward_manager: is 'vrprm', and verl 0.9.1 ignores it",
        "reward.reward_manager.name: naive",
        "pkg://vrprm_verl.score",
        "reward.vrprm.combinaton",
        "default_agent_loop: single_turn_agent: the rewards of all steps end up",
        "grpo: sums a response's rewards",
        "use_kl_loss=True",
    ):
        assert any(words in line for line in wrong), (words, done.stdout)
    assert len(wrong) == 8


@pytest.mark.parametrize(
    ("algorithm", "rollout", "what", "says"),
    [
        ({"adv_estimator": "vrprm_process_grpo"}, {"n": 8}, "reward rule", "set credit=raw"),
        ({"adv_estimator": "vrprm_same_step"}, {"n": 1}, "rollout.n", "nothing would be learnt"),
        (
            {
                "adv_estimator": "vrprm_same_step",
                "filter_groups": {"enable": True, "metric": "reward"},
            },
            {"n": 8},
            "filter_groups.metric",
            "set it to score",
        ),
    ],
)
def test_doctor_finds_rules_that_do_not_fit_and_groups_of_one(algorithm, rollout, what, says):
    from vrprm_verl.doctor_config import examine_config

    found = examine_config(
        {
            "reward": {"reward_manager": {"name": "vrprm"}, "reward_model": {"enable": False},
                       "vrprm": {"url": "openai+http://127.0.0.1:9/v1", "combination": "gated",
                                 "credit": "own"}},
            "algorithm": algorithm,
            "trainer": {"use_v1": True},
            "actor_rollout_ref": {
                "rollout": {**rollout, "agent": {"default_agent_loop": "vrprm_single_turn_agent"}}
            },
        }
    )  # fmt: skip
    (wrong,) = [finding for finding in found if not finding.ok]
    assert what in wrong.what
    assert says in wrong.detail


@pytest.mark.parametrize(
    ("rule", "estimator", "says"),
    [
        (
            {"combination": "gated", "credit": "own"},
            "group_mean",
            r"'own' is made for .* set credit=running_min",
        ),
        ({}, "leave_one_out", r"'sound' is made for .*'sound_prefix'.* combination=gated"),
        ({"combination": "ps_grpo"}, "sound_prefix", "set combination=sound, or another"),
    ],
)
def test_a_reward_manager_refuses_a_rule_that_its_estimator_misreads(rule, estimator, says):
    from types import SimpleNamespace

    from omegaconf import OmegaConf

    from vrprm_verl.reward import VRPRMRewardManager

    config = OmegaConf.create(
        {
            "reward": {"vrprm": {"url": "openai+http://127.0.0.1:9/v1", **rule}},
            "algorithm": {"adv_estimator": f"vrprm_{estimator}"},
        }
    )
    with pytest.raises(InputError, match=says):
        VRPRMRewardManager(config, SimpleNamespace())


def test_a_file_that_is_no_configuration_of_verl_is_refused_before_anything_is_started(tmp_path):
    from vrprm_verl.doctor import examine

    (tmp_path / "config.yaml").write_text("model: demo")
    with pytest.raises(InputError, match="no composed configuration of verl"):
        examine(tmp_path / "config.yaml")
