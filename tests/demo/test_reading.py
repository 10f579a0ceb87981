"""Samples without thinking ask what the scorer asks, and what a careful reader would note."""

import random
from itertools import islice

import pytest

from vrprm_reward import load_profile
from vrprm_reward.demo import drills, world
from vrprm_reward.demo.losses import losses
from vrprm_reward.demo.reading import (
    MOST_TURNS,
    NUMBER_LAYER,
    TICK_LAYER,
    TRUTH_LAYER,
    bare_sample,
    framed_sample,
    random_readings,
)
from vrprm_reward.demo.recipe import READING, READING_PROFILES, demo_profile
from vrprm_reward.demo.samples import Sample, Target, case_of
from vrprm_reward.scoring.frames import FRAMES
from vrprm_reward.scoring.parse import Thought


def told(sample, encoder, task):
    """(Text up to the place, word that is asked for), of a task."""
    decode = encoder.tokenizer.decode
    return [
        (decode(list(sample.ids[: target.place + 1])), decode([target.token]))
        for target in sample.targets
        if target.task == task
    ]


@pytest.mark.parametrize("name", READING_PROFILES)
def test_judgements_are_asked_for_where_the_scorer_asks(name, encoder):
    profile = demo_profile(name)
    rng = random.Random(0)
    for example in [world.random_example(rng) for _ in range(5)]:
        sample = framed_sample(example, profile, encoder)
        judged = [target for target in sample.targets if target.task == "judge"]
        assert len(judged) == len(example.steps)
        for index, target in enumerate(judged):
            prompt = FRAMES[profile.frame].judge(
                profile, case_of(example, profile), Thought(""), example.labels[:index]
            )
            assert sample.ids[: target.place + 1] == tuple(encoder.encode(prompt).ids)
            assert target.token == encoder.verdict_ids[example.labels[index]]
            assert target.layer is None
        assert len(told(sample, encoder, "verdict")) == len(example.steps)


@pytest.mark.parametrize("name", READING_PROFILES)
def test_claims_ends_and_judgements_know_the_number_of_their_step(name, encoder):
    profile = demo_profile(name)
    example = drills.count_example(random.Random(0))
    sample = framed_sample(example, profile, encoder)
    number_at = {
        target.place: encoder.tokenizer.decode([target.token])
        for target in sample.targets
        if target.task == "number"
    }
    assert all(t.layer == NUMBER_LAYER for t in sample.targets if t.task == "number")
    for task in ("judge", "tick", "verdict"):
        places = [target.place for target in sample.targets if target.task == task]
        assert [number_at[place] for place in places] == [str(k) for k in range(len(places))]


def test_an_exercise_is_no_long_conversation(encoder):
    profiles = {"talk": (demo_profile("multi_turn_no_think"), 1.0)}
    for kind, most in (("framed counts", MOST_TURNS), ("framed solution", 9)):
        rng = random.Random(0)
        samples = islice(random_readings(rng, profiles, encoder, {kind: 1.0}), 40)
        steps = [sum(t.task == "judge" for t in sample.targets) for sample in samples]
        assert MOST_TURNS <= max(steps) <= most


def test_a_number_is_asked_for_behind_what_is_counted_and_a_tick_behind_the_claim(encoder):
    example = drills.count_example(random.Random(3))
    sample = bare_sample(example, load_profile("demo"), encoder)
    numbers, ticks, verdicts = (told(sample, encoder, t) for t in ("truth", "tick", "verdict"))
    assert len(numbers) == len(ticks) == len(verdicts) == len(example.steps)
    rows = zip(example.steps, numbers, ticks, verdicts, strict=True)
    for step, (before, number), (read, tick), (whole, verdict) in rows:
        noun, truth, claim = step.sentence[1], step.sentence[2], step.sentence[4]
        assert before.endswith(noun)
        assert number == f" {truth.words.upper()}"
        assert read.endswith(f" {claim.word}")
        assert tick == (" yes" if step.label else " no")
        assert whole.rstrip().endswith(step.text)
        assert verdict == (" right" if step.label else " wrong")
    layers = {target.task: target.layer for target in sample.targets}
    assert layers == {"truth": TRUTH_LAYER, "tick": TICK_LAYER, "verdict": None}


def test_what_follows_from_a_wrong_number_is_not_asked_for(encoder):
    rng = random.Random(1)
    for example in islice(iter(lambda: drills.sums_example(rng), None), 8):
        sample = bare_sample(example, load_profile("demo"), encoder)
        asked = len(told(sample, encoder, "truth"))
        known = 0
        for step in example.steps:
            sound = True
            for part in step.sentence:
                known += isinstance(part, world.Truth) and sound
                sound = sound and not (isinstance(part, world.Claim) and part.word != part.true)
        assert asked == known


def test_sums_are_about_what_can_be_counted_in_the_picture():
    for seed in range(5):
        example = drills.sums_example(random.Random(seed))
        assert not isinstance(example.scene, drills.Tally)
        assert len(example.steps) == drills.QUIZ_STEPS


@pytest.mark.parametrize("kind", sorted({share for stage in READING for share in stage.shares}))
def test_every_kind_of_the_stages_makes_samples(kind, encoder):
    profiles = {name: (demo_profile(name), share) for name, share in READING_PROFILES.items()}
    for sample in islice(random_readings(random.Random(0), profiles, encoder, {kind: 1.0}), 3):
        tasks = {target.task for target in sample.targets}
        assert {"tick", "verdict"} <= tasks
        assert ("judge" in tasks) == kind.startswith("framed ")


def test_what_is_asked_of_a_layer_is_read_from_it(encoder, model):
    example = drills.count_example(random.Random(0))
    sample = bare_sample(example, load_profile("demo"), encoder)
    place = len(sample) - 1
    targets = (Target(place, 5, "late"), Target(place, 5, "early", 2))
    found = losses(model, encoder, [Sample(sample.ids, sample.images, targets)])
    text = model.model.language_model
    kept, layers = [], text.layers
    hook = layers[1].register_forward_hook(lambda *_: kept.append(_[-1]))
    again = losses(model, encoder, [Sample(sample.ids, sample.images, targets[:1])])
    hook.remove()
    out = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
    early = model.lm_head(text.norm(out[0, place]))
    assert found["early"].item() == pytest.approx(-early.log_softmax(-1)[5].item(), abs=1e-5)
    assert found["late"].item() == pytest.approx(again["late"].item(), abs=1e-6)
    assert abs(found["late"].item() - found["early"].item()) > 1e-3
