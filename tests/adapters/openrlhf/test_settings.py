from pathlib import Path

import pytest

from vrprm_openrlhf.settings import Settings, TrainerSettings
from vrprm_reward.errors import InputError
from vrprm_reward.rewards.advantage import ESTIMATORS
from vrprm_reward.rewards.combine import DEFAULT_ADVANTAGE

URL = {"VRPRM_OPENRLHF_URL": "http://reward:8000"}


def test_settings_are_read_from_the_environment_and_others_are_left_alone():
    found = Settings.from_environment(
        URL
        | {
            "VRPRM_OPENRLHF_MODE": "dense",
            "VRPRM_OPENRLHF_COMBINATION": "sum",
            "VRPRM_OPENRLHF_CREDIT": "centred",
            "VRPRM_OPENRLHF_OUTCOME_WEIGHT": "0.5",
            "VRPRM_OPENRLHF_UNSCORED_REWARD": "-1",
            "VRPRM_OPENRLHF_URL_HOSTS": "a.example, b.example",
            "VRPRM_TOKEN": "x",
            "PATH": "/bin",
        }
    )
    assert (found.mode, found.rule.credit, found.rule.outcome_weight) == ("dense", "centred", 0.5)
    assert found.unscored_reward == -1
    assert found.url_hosts == ("a.example", "b.example")
    assert found.advantage == "leave_one_out"


@pytest.mark.parametrize(
    ("variables", "advantage"),
    [
        ({}, DEFAULT_ADVANTAGE),
        ({"COMBINATION": "ps_grpo"}, "leave_one_out"),
        ({"COMBINATION": "gated", "CREDIT": "own"}, "same_step"),
        ({"COMBINATION": "gated", "CREDIT": "own", "ADVANTAGE": "none"}, "none"),
    ],
)
def test_worker_and_trainer_take_the_advantage_rule_that_the_reward_rule_is_made_for(
    variables, advantage
):
    named = URL | {f"VRPRM_OPENRLHF_{name}": value for name, value in variables.items()}
    for settings in (Settings, TrainerSettings):
        assert settings.from_environment(named).advantage == advantage


def test_the_trainer_needs_no_server():
    found = TrainerSettings.from_environment({"VRPRM_OPENRLHF_ADVANTAGE": "none"})
    assert (found.advantage, found.max_masked_share) == ("none", 0.5)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "VRPRM_OPENRLHF_URL is not set"),
        (URL | {"VRPRM_OPENRLHF_MODES": "dense"}, "unknown settings VRPRM_OPENRLHF_MODES"),
        (URL | {"VRPRM_OPENRLHF_MODE": "thick"}, "VRPRM_OPENRLHF_MODE: "),
        (URL | {"VRPRM_OPENRLHF_CREDIT": "none"}, "VRPRM_OPENRLHF_CREDIT: "),
        (URL | {"VRPRM_OPENRLHF_UNSCORED_REWARD": "nan"}, "VRPRM_OPENRLHF_UNSCORED_REWARD: "),
        (URL | {"VRPRM_OPENRLHF_MAX_MASKED_SHARE": "2"}, "VRPRM_OPENRLHF_MAX_MASKED_SHARE: "),
        (
            URL
            | {
                "VRPRM_OPENRLHF_MODE": "dense",
                "VRPRM_OPENRLHF_COMBINATION": "gated",
                "VRPRM_OPENRLHF_CREDIT": "own",
                "VRPRM_OPENRLHF_ADVANTAGE": "process_grpo",
            },
            r"'own' is made for .* 'same_step'; with 'process_grpo' .* credit=raw",
        ),
        (URL | {"VRPRM_OPENRLHF_OUTCOME": "none"}, r"outcome is 'none', .*_COMBINATION=process"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(variables, says):
    with pytest.raises(InputError, match=says):
        Settings.from_environment(variables)


def test_every_advantage_rule_of_the_core_can_be_chosen():
    for name in ESTIMATORS:
        found = TrainerSettings.from_environment({"VRPRM_OPENRLHF_ADVANTAGE": name})
        assert found.advantage == name


def test_a_token_comes_from_the_first_line_of_its_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret-secret\nother\n", encoding="utf-8")
    assert Settings(url="http://a", token_file=file).token == "secret-secret"
    assert Settings(url="http://a").token is None
    with pytest.raises(InputError, match="TOKEN_FILE cannot be read"):
        _ = Settings(url="http://a", token_file=Path(tmp_path / "none")).token
