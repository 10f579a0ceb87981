"""Which verl is taken, and that refusing one is loud."""

import logging

import pytest

from vrprm_reward.errors import MissingExtraError
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
