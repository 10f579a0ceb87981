"""What `doctor` says of a run's configuration; verl itself is looked at in tests/integration."""

import importlib
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def examine():
    """`examine_config` under a verl that is but a version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "verl", types.SimpleNamespace(__version__="0.9.1"))
        patch.delitem(sys.modules, "vrprm_verl.doctor_config", raising=False)
        doctor = importlib.import_module("vrprm_verl.doctor_config")

        def found(estimator="vrprm_leave_one_out", files=(), **settings):
            findings = doctor.examine_config(
                {
                    "reward": {
                        "reward_manager": {"name": "vrprm"},
                        "vrprm": {"url": "openai+http://gpu:8000/v1", **settings},
                    },
                    "algorithm": {"adv_estimator": estimator},
                    "data": {"train_files": files},
                    "actor_rollout_ref": {
                        "rollout": {"agent": {"default_agent_loop": "vrprm_single_turn_agent"}}
                    },
                }
            )
            return {finding.what: finding for finding in findings}

        yield found
        # Others ask what happens where there is no verl.
        del sys.modules["vrprm_verl.doctor_config"]


@pytest.mark.parametrize("combination", ["outcome", "ps_grpo"])
@pytest.mark.parametrize(
    "estimator", ["grpo", "rloo", "opo", "gpg", "reinforce_plus_plus_baseline"]
)
def test_estimators_that_sum_are_right_where_there_is_one_reward(examine, combination, estimator):
    finding = examine(estimator, combination=combination)["algorithm.adv_estimator"]
    assert finding.ok
    assert "a masked row counts as a response of reward 0" in finding.detail
    assert "vrprm/masked_share" in finding.detail


@pytest.mark.parametrize("combination", ["gated", "sum", "process", "combined"])
def test_estimators_that_sum_are_wrong_where_steps_are_rewarded(examine, combination):
    finding = examine("grpo", combination=combination)["algorithm.adv_estimator"]
    assert not finding.ok
    assert "steps are not credited" in finding.detail
    assert not examine("grppo", combination="ps_grpo")["algorithm.adv_estimator"].ok


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"outcome": "none"}, "acc (val-core) is 0 on every row and says nothing"),
        ({}, "without a ground truth, its acc is 0 and says nothing"),
        ({"validation": "full"}, "acc (val-core) is the outcome, 0 where it is not known"),
    ],
)
def test_it_says_what_validation_shows_where_the_rule_needs_no_outcome(examine, settings, words):
    finding = examine(combination="process", **settings)["validation"]
    assert finding.ok
    assert words in finding.detail
    assert "sum" in finding.detail
    assert "validation" not in examine()


@pytest.fixture
def parquet(tmp_path):
    def write(name, *extra_info):
        path = tmp_path / f"{name}.parquet"
        rows = [{"prompt": "How many?", "extra_info": each} for each in extra_info]
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)

    return write


def test_training_rows_that_are_taken_for_validation_rows_are_found(examine, parquet):
    files = [parquet("own", {"split": "train"}), parquet("held", {"split": "test"}, None)]
    finding = examine(files=files)["data.train_files"]
    assert not finding.ok
    assert "held.parquet has rows whose extra_info.split is test:" in finding.detail
    assert "+reward.vrprm.validation=full" in finding.detail
    assert examine(files=files[0])["data.train_files"].ok
    assert examine(files=files[1], validation_splits=["val"])["data.train_files"].ok
    for settings in (
        {"validation": "full"},
        {"combination": "outcome"},
        {"combination": "process", "outcome": "none"},
    ):
        assert "data.train_files" not in examine(files=files, **settings)


def test_training_files_without_splits_are_fine_and_those_that_are_elsewhere_are_named(
    examine, parquet, tmp_path
):
    assert examine(files=parquet("index", {"index": 1}))["data.train_files"].ok
    assert examine(files=parquet("text", "test"))["data.train_files"].ok
    elsewhere = examine(files="~/data/nowhere.parquet")["data.train_files"]
    assert elsewhere.ok
    assert "its rows were not looked at" in elsewhere.detail
    (tmp_path / "broken.parquet").write_bytes(b"PAR")
    broken = examine(files=str(tmp_path / "broken.parquet"))["data.train_files"]
    assert not broken.ok
    assert "cannot be read" in broken.detail
