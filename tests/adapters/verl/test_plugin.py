"""Which verl is taken, and that refusing one is loud."""

import logging

import pytest

from vrprm_reward.errors import InputError, MissingExtraError
from vrprm_verl.patches import VARIABLE, wanted_patches
from vrprm_verl.plugin import load, version_of


@pytest.mark.parametrize(
    ("version", "parts"),
    [("0.9.1", (0, 9)), ("0.10.0.dev0", (0, 10)), ("1.0", (1, 0))],
)
def test_versions_are_compared_as_numbers(version, parts):
    assert version_of(version) == parts


def test_what_is_no_version_is_refused():
    with pytest.raises(MissingExtraError, match="'main' is no version"):
        version_of("main")


def test_a_verl_that_is_too_old_is_refused_and_logged_since_verl_would_only_go_on(caplog):
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(MissingExtraError, match=r"verl 0\.7\.1 is too old.*verl>=0\.8"),
    ):
        load("0.7.1")
    assert "no step will be credited" in caplog.text


def test_changes_to_verl_are_wanted_by_name_and_an_unknown_name_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "metrics, fallback")
    assert wanted_patches() == ("metrics", "fallback")
    monkeypatch.setenv(VARIABLE, "metrics,fallbak")
    with pytest.raises(InputError, match="names 'fallbak'; known are fallback, metrics"):
        wanted_patches()
