import json

import pytest
from rich.console import Console

from examples.tiny_rl.__main__ import GRID, RATES
from examples.tiny_rl.gaming import gaming_rows
from examples.tiny_rl.grid import RunFailedError, carry_out, folder_of, grid
from examples.tiny_rl.habits import HABITS
from examples.tiny_rl.run import FINISHED
from examples.tiny_rl.summary import (
    HEADINGS,
    as_markdown,
    best_rates,
    curve_rows,
    curves,
    ends,
    reached,
    seed_rows,
    table_rows,
    with_spread,
)


def finish(root, settings, final, **more):
    """Write the log of a run as if it had been made."""
    folder = folder_of(root, settings)
    folder.mkdir(parents=True)
    habits = {f"sampled/habit/{name}": 0.0 for name in HABITS}
    figures = {
        "sampled/final": final, "greedy/final": final, "sampled/steps": 0.5,
        "sampled/number_of_steps": 6.0, "sampled/tokens": 50.0, "sampled/sound": 0.1, **habits,
    }  # fmt: skip
    rows = [
        {"kind": "held_out", "update": 0, **figures, "sampled/final": 0.05},
        {"kind": "train", "update": 1, "reward/reward/mean": 1.0, "steps": 0.3},
        {"kind": "train", "update": 2, "reward/reward/mean": 3.0, "steps": 0.4,
         "reward/p_correct/mean": 0.5},
        {"kind": "held_out", "update": 2, **figures, **more},
    ]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / FINISHED).write_text(settings.model_dump_json())


@pytest.fixture
def wanted():
    return grid("hard", ["outcome", "dense"], {"outcome": (0.1, 0.3), "dense": (0.1,)}, range(2))


def test_a_grid_has_every_arm_at_its_rates_with_every_seed(wanted):
    assert [(s.arm, s.rate, s.seed) for s in wanted] == [
        ("outcome", 0.1, 0), ("outcome", 0.3, 0), ("dense", 0.1, 0),
        ("outcome", 0.1, 1), ("outcome", 0.3, 1), ("dense", 0.1, 1),
    ]  # fmt: skip
    assert len({s.name for s in wanted}) == len(wanted)


def test_the_table_has_mean_and_spread_over_the_finished_runs(tmp_path, wanted):
    for settings, final in zip(wanted, (0.1, 0.3, 0.5, 0.2, 0.4), strict=False):
        finish(tmp_path, settings, final)
    found = curves(tmp_path, wanted)
    rows = table_rows(found)
    assert [row[:4] for row in rows] == [
        ("outcome", "0.1", "2", "0.150 ± 0.071"),
        ("outcome", "0.3", "2", "0.350 ± 0.071"),
        ("dense", "0.1", "1", "0.500"),
    ]
    assert best_rates(ends(found, "sampled/final")) == {"outcome": 0.3, "dense": 0.1}
    assert as_markdown(rows).splitlines()[4].startswith("| dense | 0.1 | 1 | 0.500 |")


def test_a_rate_at_which_a_seed_fails_is_not_the_best_one(tmp_path):
    runs = grid("hard", ["dense"], {"dense": (0.1, 0.3)}, range(2))
    for settings, final in zip(runs, (0.3, 0.7, 0.3, 0.0), strict=True):
        finish(tmp_path, settings, final)
    assert best_rates(ends(curves(tmp_path, runs), "sampled/final")) == {"dense": 0.1}


def test_the_rates_of_the_comparison_follow_from_the_figures_of_the_sweep():
    rates = json.loads(RATES.read_text())
    for start, arms in json.loads(RATES.with_name("sweep.json").read_text()).items():
        found = {
            (arm, float(rate)): values
            for arm, by_rate in arms.items()
            for rate, values in by_rate.items()
        }
        assert {rate for _, rate in found} == set(GRID)
        for arm, rate in best_rates(found).items():
            assert rates[start][arm] == rate, (start, arm)


def test_when_an_arm_is_as_good_as_the_best_of_another(tmp_path):
    rates = {"outcome": (0.1, 0.3), "dense": (0.1,), "dense_random": (0.1,)}
    runs = grid("hard", list(rates), rates, range(2))
    for settings, final in zip(runs, (0.1, 0.0, 0.4, 0.05, 0.3, 0.0, 0.2, 0.05), strict=True):
        finish(tmp_path, settings, final)
    level, first = reached(curves(tmp_path, runs), "sampled/final", "outcome")
    assert level == pytest.approx(0.2)
    assert first == {
        ("outcome", 0.1): 2, ("outcome", 0.3): None, ("dense", 0.1): 2, ("dense_random", 0.1): None,
    }  # fmt: skip


def test_curves_and_seeds_are_tables_too(tmp_path, wanted):
    for settings, final in zip(wanted, (0.1, 0.3, 0.5, 0.2, 0.4), strict=False):
        finish(tmp_path, settings, final)
    found = curves(tmp_path, wanted)
    headings, rows = curve_rows(found, "sampled/final", 32)
    assert headings == ["arm", "rate", "0", "64"]
    assert rows[0] == ["outcome", "0.1", "0.050", "0.150"]
    assert seed_rows(found, "sampled/final")[1:] == [
        ["outcome", "0.3", "0.300, 0.400"], ["dense", "0.1", "0.500"],
    ]  # fmt: skip


def test_no_right_answer_is_no_share_of_them(tmp_path, wanted):
    assert with_spread([]) == "none"
    finish(tmp_path, wanted[0], 0.0)
    finish(tmp_path, wanted[3], 0.2, **{"sampled/right_on_wrong_step": 0.9})
    (row, *_) = table_rows(curves(tmp_path, wanted))
    assert row[HEADINGS.index("right answers on a wrong step")] == "0.900"


def test_the_gaming_table_sets_what_is_believed_beside_truth(tmp_path, wanted):
    for settings in wanted:
        finish(tmp_path, settings, 0.25)
    rows = gaming_rows(tmp_path, wanted)
    assert [row["arm"] for row in rows] == ["outcome", "dense"]
    assert rows[0]["believed"] == "0.50 to 0.500 ± 0.000"
    assert rows[0]["final"] == "0.05 to 0.250 ± 0.000"


def test_runs_that_are_there_are_not_made_again(tmp_path, wanted):
    for settings in wanted:
        finish(tmp_path, settings, 0.1)
    carry_out(tmp_path, tmp_path / "no starts", wanted, 2, Console(quiet=True))


def test_a_run_that_fails_ends_the_grid_and_says_where_its_words_are(tmp_path, wanted):
    (tmp_path / "starts" / "hard").mkdir(parents=True)  # and no policy in it
    with pytest.raises(RunFailedError, match=r"output\.txt"):
        carry_out(tmp_path, tmp_path / "starts", wanted[:1], 1, Console(quiet=True))
    output = (folder_of(tmp_path, wanted[0]) / "output.txt").read_text()
    assert "taught otherwise, nobody knows how" in " ".join(output.split())


def test_the_curves_are_drawn(tmp_path, wanted):
    pytest.importorskip("matplotlib")
    from examples.tiny_rl.plots import draw_curves

    for settings in wanted:
        finish(tmp_path, settings, 0.1)
    draw_curves(curves(tmp_path, wanted), tmp_path / "curves.png", 32, "hard")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
