"""Engines on a checkpoint with random weights, and what they are held against."""

import pytest

from tests.engines.test_local_engine import TEMPLATE, Oracle
from vrprm_reward.engines.local.engine import LocalEngine
from vrprm_reward.engines.local.options import LocalOptions


@pytest.fixture(scope="module")
def oracle(random_qwen3_vl):
    return Oracle(random_qwen3_vl)


@pytest.fixture
def load(random_qwen3_vl):
    engines = []

    def load_engine(**options):
        options = LocalOptions(**options)
        engines.append(LocalEngine.load(random_qwen3_vl, template=TEMPLATE, options=options))
        return engines[-1]

    yield load_engine
    for engine in engines:
        engine.close()
