"""What rows, metrics and logs say when things go wrong, through verl's V1 chain."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from tests.integration.processes import vrprm_serve
from tests.integration.verl.harness import (
    DENSE,
    ScriptedPolicy,
    config_of,
    prompts_of,
    vrprm,
    write_data,
)
from tests.integration.verl.v1 import V1Run
from vrprm_verl.estimators import MaskedShareError
from vrprm_verl.patches import row_metrics
from vrprm_verl.row import ROW, Row

GOOD = "The number of red shapes is three.\n\nThe answer is three."
QUESTIONS = {
    "good": "How many red shapes are there?",
    "image": "How many circles are there?",
    "empty": "How many squares are there?",
    "long": "How many triangles are there?",
    "cut": "How many blue shapes are there?",
    "late": "How many green shapes are there?",
}
RESPONSES = {
    QUESTIONS["good"]: [GOOD],
    QUESTIONS["image"]: [GOOD],
    QUESTIONS["empty"]: [""],
    QUESTIONS["long"]: ["\n".join(["a"] * 300)],
    QUESTIONS["cut"]: ["The number of red shapes is three. " * 300],
    QUESTIONS["late"]: ["Late."],
}
LENGTH = 610
ESTIMATOR = "algorithm.adv_estimator=vrprm_leave_one_out"


def config_for(url, *more):
    lines = ("actor_rollout_ref.rollout.n=1", f"actor_rollout_ref.rollout.response_length={LENGTH}")
    return config_of(*DENSE, *vrprm(url), ESTIMATOR, *lines, *more)


def rows_of(run, batch):
    data = run.get(batch, "uid", "rm_scores", "extra_fields")
    return {
        uid: (rewards, fields["reward_extra_info"])
        for uid, rewards, fields in zip(
            list(data["uid"]), data["rm_scores"].unbind(), list(data["extra_fields"]), strict=True
        )
    }


@pytest.fixture(scope="module")
def found(reward_loops, shapes, tmp_path_factory):
    """One batch with every kind of trouble; its server is killed before the last response comes."""
    folder = tmp_path_factory.mktemp("faults")
    tiny = Image.new("RGB", (3, 3), "red")
    rows = [
        (question, "three", tiny if kind == "image" else shapes)
        for kind, question in QUESTIONS.items()
    ]
    write_data(folder / "train.parquet", rows)
    policy = ScriptedPolicy(RESPONSES, gates={"Late": folder / "open"})
    with vrprm_serve(folder) as server, ThreadPoolExecutor() as threads:
        config = config_for(server.url, "+reward.vrprm.timeout=20")
        run = V1Run(config, policy, reward_loops.of(config))
        rollout = threads.submit(run.rollout, prompts_of(config, folder / "train.parquet"))
        try:
            end = time.monotonic() + 120
            while len([key for key in run.tags() if key.endswith("_0_0")]) < len(QUESTIONS) - 1:
                assert time.monotonic() < end, run.tags()
                time.sleep(0.1)
        finally:
            server.kill()
            (folder / "open").touch()
        batch = rollout.result()
        unreachable = f"(server_unreachable): {server.url} cannot be reached"
        yield run, batch, rows_of(run, batch), run.states, unreachable
        run.close()


def row_of(found, kind):
    uid = f"problem{list(QUESTIONS).index(kind)}"
    rewards, info = found[2][uid]
    return rewards, info, json.loads(info[ROW])


def test_no_prompt_group_fails_whatever_happens_to_its_rows(found):
    assert set(found[3].values()) == {"finished"}
    assert len(found[2]) == len(QUESTIONS)
    assert len({tuple(info) for _, info in found[2].values()}) == 1


def test_a_bad_image_masks_its_row_and_no_other(found):
    rewards, info, row = row_of(found, "image")
    assert (row["status"], row["reason"]) == ("unscored_ours", "image_limit")
    assert not rewards.any()
    assert info["vrprm_masked"] == 1
    rewards, info, row = row_of(found, "good")
    assert (row["status"], row["outcome"]) == ("scored", 1.0)
    assert len(rewards.nonzero()) == 3


@pytest.mark.parametrize(
    ("kind", "reason"), [("empty", "response_empty"), ("long", "too_many_steps")]
)
def test_a_response_that_made_itself_unscorable_has_the_lowest_reward_and_is_seen(
    found, kind, reason
):
    rewards, info, row = row_of(found, kind)
    assert (row["status"], row["reason"]) == ("unscored_response", reason)
    assert len(rewards) >= (600 if kind == "long" else 1)
    assert rewards.nonzero().flatten().tolist() == [len(rewards) - 1]
    assert rewards.sum().item() == pytest.approx(0, abs=1e-20)
    assert (info["vrprm_masked"], info["vrprm_unscorable"]) == (0, 1)


def test_a_response_cut_at_the_limit_is_scored(found):
    rewards, _, row = row_of(found, "cut")
    assert len(rewards) == LENGTH
    assert row["status"] == "scored", row
    assert rewards.any()


def test_a_server_that_dies_in_mid_batch_masks_what_it_had_not_scored(found):
    rewards, _, row = row_of(found, "late")
    assert (row["status"], row["reason"]) == ("unscored_ours", "server_unreachable")
    assert not rewards.any()


def test_the_metrics_of_that_batch_count_each_reason(found):
    metrics = row_metrics([Row.from_json(info[ROW]) for _, info in found[2].values()])
    assert metrics["vrprm/masked_share"] == pytest.approx(2 / 6)
    assert metrics["vrprm/unscorable_share"] == pytest.approx(2 / 6)
    for reason in ("image_limit", "response_empty", "too_many_steps", "server_unreachable"):
        assert metrics[f"vrprm/reason/{reason}"] == pytest.approx(1 / 6)


def test_the_reward_workers_log_says_each_reason_once_with_its_sentence(found, cluster):
    text = "".join(path.read_text() for path in cluster.glob("worker-*.err"))
    lines = [line for line in text.splitlines() if "a rollout has no score" in line]
    for words in ("(image_limit): PIL image (mode RGB) is 3 x 3 pixels", found[4]):
        assert len([line for line in lines if words in line]) == 1, lines


def test_the_trainers_advantage_step_stops_beyond_the_stated_share(found):
    run, batch = found[:2]
    with pytest.raises(MaskedShareError, match="2 of 6 rollouts of this batch have no score"):
        run.advantages(batch)
