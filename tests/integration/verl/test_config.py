"""Every configuration line that is written down anywhere, composed by verl's real Hydra config."""

import re
import subprocess

import pytest
from omegaconf import OmegaConf

from tests.integration.processes import ROOT

PAGE = ROOT / "docs" / "verl.md"
SCRIPT = ROOT / "examples" / "verl" / "run_qwen3_vl_geo3k.sh"
OVERRIDE = re.compile(r"\+?[a-z_]+(?:\.\w+)+=\S+")


def blocks():
    """The overrides of every code block of the page that has any."""
    found = []
    for block in re.findall(r"```\w*\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        lines = [line.strip().removesuffix("\\").strip(' "') for line in block.splitlines()]
        overrides = [line for line in lines if OVERRIDE.fullmatch(line)]
        if overrides:
            found.append(overrides)
    return found


def inline():
    """Overrides that stand in the text."""
    text = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [each for each in re.findall(r"`([^`]+)`", text) if OVERRIDE.fullmatch(each)]


def examined(config):
    """What `doctor` says of a composed configuration, but for a server that is not there."""
    from vrprm_verl.doctor_config import examine_config

    findings = examine_config(OmegaConf.to_container(config, resolve=False))
    return [f for f in findings if not f.ok and "cannot be reached" not in f.detail]


def test_there_are_blocks_to_compose():
    assert len(blocks()) >= 3
    assert len(inline()) >= 5


@pytest.mark.parametrize("overrides", blocks(), ids=lambda lines: lines[0].partition("=")[0])
def test_every_code_block_of_the_page_composes_and_has_no_wrong_setting(overrides):
    from tests.integration.verl.harness import config_of

    config = config_of(*overrides)
    assert not [f for f in examined(config) if f.what == "settings"]


@pytest.mark.parametrize("override", inline())
def test_every_line_in_the_text_composes(override):
    from tests.integration.verl.harness import config_of

    config_of(override)


@pytest.mark.parametrize("mode", ["server", "hosted"])
def test_the_example_script_composes_and_doctor_finds_nothing_wrong(mode):
    from tests.integration.verl.harness import config_of

    done = subprocess.run([SCRIPT, mode, "print"], capture_output=True, text=True, check=True)
    config = config_of(*done.stdout.splitlines())
    assert config.algorithm.adv_estimator == "vrprm_sound_prefix"
    assert examined(config) == []


def test_doctor_names_verls_estimators_that_the_v1_trainer_cannot_run():
    from tests.integration.verl.harness import config_of
    from vrprm_verl.doctor_config import V0_ONLY

    for name in V0_ONLY:
        v1, v0 = (
            [f.detail for f in examined(config_of(*lines, f"algorithm.adv_estimator={name}"))]
            for lines in ([], ["trainer.use_v1=False"])
        )
        assert any("V1 trainer stops at its first step" in detail for detail in v1), v1
        assert not any("V1" in detail for detail in v0), v0


def test_every_override_of_the_example_script_is_near_an_explanation():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    ours = [n for n, line in enumerate(lines) if re.match(r"\s+\"?\+?\w+\..*vrprm", line)]
    assert len(ours) > 8
    for n in ours:
        near = [line.strip() for line in lines[max(0, n - 3) : n]]
        assert any(line.startswith("#") for line in near), lines[n]
