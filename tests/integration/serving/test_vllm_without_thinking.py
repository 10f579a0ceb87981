"""The real vLLM gives the scores of the engine in this process, of a model that judges at once.

Its server is one more: it ends with this module.
"""

import pytest

from tests.integration.processes import vllm
from tests.integration.serving.test_vllm_scores import assert_scores_are_equal
from vrprm_reward import load_profile
from vrprm_reward.process_reward import DEMO_NO_THINK, PACKAGED
from vrprm_reward.scoring.profile import builtin_profiles


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with vllm(tmp_path_factory.mktemp("no_think"), checkpoint=PACKAGED[DEMO_NO_THINK]) as started:
        yield started


@pytest.mark.parametrize("name", [n for n in builtin_profiles() if not load_profile(n).think])
def test_probabilities_and_verdicts_are_those_of_the_local_engine(server, name):
    assert_scores_are_equal(server, name, DEMO_NO_THINK)
