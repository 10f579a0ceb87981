"""What every visual token is to name."""

import random
from itertools import islice

import pytest
import torch

from vrprm_reward import load_profile
from vrprm_reward.demo.look import look_losses, words_of_cells
from vrprm_reward.demo.model import build_model
from vrprm_reward.demo.scene import PLACES, Scene, Thing
from vrprm_reward.demo.train import make_encoder


def test_cells_are_named_in_the_order_of_visual_tokens():
    things = [None] * 9
    things[1], things[5] = Thing("green", "star"), Thing("red", "circle")
    words = words_of_cells(Scene(tuple(things)))
    assert words["place"] == [f" {place}" for place in PLACES]
    assert words["colour"] == [" NOTHING", " GREEN", *[" NOTHING"] * 3, " RED", *[" NOTHING"] * 3]
    assert words["shape"] == [None, " STAR", None, None, None, " CIRCLE", None, None, None]


def test_looking_starts_at_guessing_and_is_learnt_from_pictures(demo_tokenizer):
    torch.manual_seed(0)
    model = build_model(demo_tokenizer)
    encoder = make_encoder(demo_tokenizer, load_profile("demo"), model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    asked = look_losses(model, encoder, load_profile("demo"), random.Random(0), pictures=8)
    first = last = {}
    for found in islice(asked, 30):
        first = first or {name: loss.item() for name, loss in found.items()}
        torch.stack([*found.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        last = {name: loss.item() for name, loss in found.items()}
    assert set(first) == {"place", "colour", "shape"}
    assert first["place"] == pytest.approx(2.2, abs=0.4)
    assert last["place"] < 0.5 * first["place"]
    assert last["colour"] < 0.5 * first["colour"]
