"""Starts are made once, and one that was taught otherwise is not taken for another."""

import json
from dataclasses import replace

import pytest

from examples.tiny_rl import starts
from examples.tiny_rl.evaluation import evaluate
from examples.tiny_rl.policy import load_policy
from examples.tiny_rl.pretrain import Stage
from examples.tiny_rl.problems import HELD_OUT_SEED, tasks
from examples.tiny_rl.starts import STARTS, TAUGHT, figures_of, make_start


def test_a_start_is_made_once_and_one_that_was_taught_otherwise_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(starts, "BASE", (Stage("look", 1, pictures=1),))
    short = replace(STARTS["hard"], stage=Stage("imitate", 1, solutions=1))
    monkeypatch.setattr(starts, "STARTS", {"hard": short})
    told = []
    folder = make_start("hard", tmp_path, lambda *what: told.append(what))
    assert [stage for stage, _, _ in told] == ["look", "imitate"]
    weights = (folder / "model.safetensors").read_bytes()
    assert make_start("hard", tmp_path, lambda *what: told.append(what)) == folder
    assert (folder / "model.safetensors").read_bytes() == weights
    assert len(told) == 2
    taught = json.loads((folder / TAUGHT).read_text())
    taught["errors"]["count"] = 0.9
    (folder / TAUGHT).write_text(json.dumps(taught))
    with pytest.raises(ValueError, match=r"taught otherwise.*'count': 0\.9.*delete that one"):
        make_start("hard", tmp_path, lambda *_: None)


def test_the_hard_start_is_packaged_and_training_it_anew_can_be_asked_for(tmp_path, monkeypatch):
    told = []
    folder = make_start("hard", tmp_path / "copied", lambda *what: told.append(what))
    assert told == []
    assert figures_of(folder)["sampled/final"] == pytest.approx(0.072, abs=0.001)
    found = evaluate(load_policy(folder), tasks(48, HELD_OUT_SEED), seed=0)
    assert found["sampled/steps"] == pytest.approx(figures_of(folder)["sampled/steps"], abs=0.1)
    monkeypatch.setattr(starts, "BASE", (Stage("look", 1, pictures=1),))
    monkeypatch.setattr(starts, "_teach", lambda _, __, start, *___: told.append(start.stage.name))
    make_start("hard", tmp_path / "anew", lambda *_: None, anew=True)
    assert told == ["look", "imitate"]


def test_a_start_that_is_made_of_the_packaged_one_is_taught_nothing_else(tmp_path, monkeypatch):
    short = replace(STARTS["easy"], stage=Stage("imitate", 1, solutions=1))
    monkeypatch.setattr(starts, "STARTS", {**STARTS, "easy": short})
    told = []
    folder = make_start("easy", tmp_path, lambda *what: told.append(what))
    assert [stage for stage, _, _ in told] == ["imitate"]
    assert json.loads((folder / TAUGHT).read_text())["of"] == "hard"
    assert (folder / "model.safetensors").read_bytes() != (
        tmp_path / "hard" / "model.safetensors"
    ).read_bytes()
