import json

import pytest

from examples.tiny_rl.logs import RunLog, read_log
from examples.tiny_rl.run import RunSettings, is_finished, problems_of, run

SETTINGS = RunSettings(
    start="hard", arm="outcome", rate=0.1, updates=4, problems=2, group=2, pool=3, held_out=2,
    evaluate_every=2, longest=12,
)  # fmt: skip


class KilledError(Exception):
    pass


def curve(folder):
    """A log without its times."""
    return [
        {k: v for k, v in row.items() if not k.endswith(("_s", "seconds")) and k != "scored"}
        for row in read_log(folder)
    ]


@pytest.fixture(scope="module")
def start(untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    untrained.save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(SETTINGS, start, folder / "run", folder / "scores")
    return folder / "run"


def test_a_run_logs_every_update_and_the_held_out_truth(whole):
    rows = read_log(whole)
    assert [(row["kind"], row["update"]) for row in rows] == [
        ("held_out", 0), ("train", 1), ("train", 2), ("held_out", 2), ("train", 3), ("train", 4),
        ("held_out", 4),
    ]  # fmt: skip
    assert {"sampled/final", "greedy/final", "sampled/steps", "seconds"} <= set(rows[-1])
    assert {"reward/reward/mean", "final", "steps", "rollouts", "scoring_s"} <= set(rows[-2])
    assert rows[-2]["rollouts"] == 16


def test_a_second_run_with_the_same_seed_and_fresh_scores_gives_the_same_curve(start, tmp_path):
    settings = SETTINGS.model_copy(update={"arm": "dense", "updates": 2})
    for name in ("first", "second"):
        run(settings, start, tmp_path / name, tmp_path / f"scores of the {name}")
    rows = read_log(tmp_path / "first")
    assert [row["scored"] > 0 for row in rows if row["kind"] == "train"] == [True, True]
    assert curve(tmp_path / "first") == curve(tmp_path / "second")


@pytest.mark.parametrize("last", [1, 3])  # before the first checkpoint, and behind it
def test_a_killed_run_goes_on_to_the_same_curve(start, whole, tmp_path, last):
    def kill(update):
        if update == last:
            raise KilledError

    with pytest.raises(KilledError):
        run(SETTINGS, start, tmp_path / "run", tmp_path / "scores", kill)
    assert not is_finished(SETTINGS, tmp_path / "run")
    run(SETTINGS, start, tmp_path / "run", tmp_path / "scores")
    assert curve(tmp_path / "run") == curve(whole)
    assert is_finished(SETTINGS, tmp_path / "run")


def test_a_folder_of_other_settings_is_refused(start, whole, tmp_path):
    other = SETTINGS.model_copy(update={"rate": 0.2})
    with pytest.raises(ValueError, match=r"other settings \(rate 0\.\d+ and not 0\.2\)"):
        run(other, start, whole, tmp_path)


def test_settings_for_another_reward_model_are_refused(start, tmp_path):
    other = SETTINGS.model_copy(update={"judge": "abc"})
    with pytest.raises(ValueError, match="these settings is 'abc', and the packaged one is"):
        run(other, start, tmp_path / "run", tmp_path)


def test_a_finished_run_is_left_as_it_is(start, whole, tmp_path):
    before = (whole / "log.jsonl").read_bytes()
    run(SETTINGS, start, whole, tmp_path / "no scores are made")
    assert (whole / "log.jsonl").read_bytes() == before
    assert not (tmp_path / "no scores are made").exists()


def test_a_line_that_a_kill_cut_short_is_written_again(tmp_path):
    log = RunLog(tmp_path, 0)
    log.write("train", 1, {"final": 0.5})
    log.write("train", 2, {"final": 0.6})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "upd')
    assert [row["update"] for row in read_log(tmp_path)] == [1, 2]
    RunLog(tmp_path, 1).close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == [{"kind": "train", "update": 1, "final": 0.5}]


def test_all_problems_come_before_one_comes_again_in_another_order():
    settings = SETTINGS.model_copy(update={"pool": 6, "problems": 3})
    pool = list(range(6))
    turns = [
        [*problems_of(settings, pool, n), *problems_of(settings, pool, n + 1)] for n in (1, 3, 5, 7)
    ]
    assert all(sorted(turn) == pool for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
