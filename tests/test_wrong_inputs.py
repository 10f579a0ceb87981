"""Wrong inputs against a real model in process: each has its own answer, neighbours are scored."""

import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vrprm_reward import Problem, Rollout, load_process_reward, load_profile
from vrprm_reward.engines.local.options import LocalOptions
from vrprm_reward.errors import CheckpointError, InputError, ProfileError
from vrprm_reward.process_reward import PACKAGED, _warn_of_thinking


@pytest.fixture(scope="module")
def reward(random_qwen3_vl):
    profile = load_profile_with_short_thinking()
    loaded = load_process_reward(random_qwen3_vl, profile=profile)
    yield loaded
    loaded.close()


def load_profile_with_short_thinking():
    from vrprm_reward import load_profile

    profile = load_profile("demo")
    return profile.model_copy(update={"think": profile.think.model_copy(update={"max_tokens": 4})})


@pytest.fixture
def good(picture):
    return Rollout(problem=Problem(question="q", images=[picture]), response="One.\n\nTwo.")


def make_wrong(tmp_path, picture):
    text_file = tmp_path / "notes.png"
    text_file.write_text("not an image")
    huge = tmp_path / "huge.png"
    Image.new("1", (10_000, 10_000)).save(huge)

    def with_image(image):
        return Rollout(problem=Problem(question="q", images=[image]), response="One.")

    def with_response(text):
        return Rollout(problem=Problem(question="q", images=[picture]), response=text)

    return {
        "missing file": (with_image(tmp_path / "gone.png"), "unscored_ours", "image_missing"),
        "not an image": (with_image(text_file), "unscored_ours", "image_format"),
        "100 megapixels": (with_image(huge), "unscored_ours", "image_limit"),
        "1x1 image": (with_image(Image.new("RGB", (1, 1))), "unscored_ours", "image_limit"),
        "URL": (with_image("https://example.org/a.png"), "unscored_ours", "image_source"),
        "empty response": (with_response(""), "unscored_response", "response_empty"),
        "zero steps": (with_response(" \n\n "), "unscored_response", "response_empty"),
        "200 steps": (with_response("x\n\n" * 200), "unscored_response", "too_many_steps"),
        "too long": (with_response("word " * 4000), "unscored_response", "prompt_too_long"),
        "question too long": (
            Rollout(problem=Problem(question="word " * 4000, images=[picture]), response="One."),
            "unscored_ours",
            "problem_too_long",
        ),
    }


def test_each_wrong_rollout_gets_its_reason_and_loses_no_neighbour(reward, good, tmp_path, picture):
    wrong = make_wrong(tmp_path, picture)
    rollouts = [good]
    for rollout, _, _ in wrong.values():
        rollouts += [rollout, good]
    scores = reward.score(rollouts)
    answers = {name: (s.status, s.reason) for name, s in zip(wrong, scores[1::2], strict=True)}
    assert answers == {name: (status, reason) for name, (_, status, reason) in wrong.items()}
    assert all(score.scored for score in scores[::2])
    assert all(score.detail for score in scores[1::2])


def test_a_checkpoint_full_of_nan_leaves_rollouts_unscored(random_qwen3_vl, good, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(random_qwen3_vl, broken)
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: torch.full_like(w, torch.nan) for name, w in weights.items()},
        broken / "model.safetensors",
        metadata={"format": "pt"},
    )
    reward = load_process_reward(broken, profile=load_profile_with_short_thinking())
    (score,) = reward.score([good])
    reward.close()
    assert (score.status, score.reason) == ("unscored_ours", "non_finite_logits")


def test_a_checkpoint_that_lacks_weights_is_refused(random_qwen3_vl, good, tmp_path):
    partial = tmp_path / "partial"
    shutil.copytree(random_qwen3_vl, partial)
    weights = load_file(partial / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 .*norm\.weight"):
        load_process_reward(partial, profile="demo").score([good])


def test_a_folder_that_is_no_vision_model_is_refused_by_name(tmp_path, good):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="'llama' model"):
        load_process_reward(tmp_path, profile="demo").score([good])


def test_a_question_with_half_a_surrogate_pair_is_refused_in_words_of_our_own(picture):
    with pytest.raises(ValueError, match="character 8 of the question is half of a surrogate pair"):
        Problem(question="How so \ud83d?", images=[picture])


def test_wrong_names_are_refused_at_once():
    with pytest.raises(ProfileError, match="no profile 'nope'"):
        load_process_reward("demo", profile="nope")
    with pytest.raises(InputError, match="no server this version speaks to"):
        load_process_reward("ftp://localhost:8000")
    with pytest.raises(InputError, match="has its own profile"):
        load_process_reward("http://localhost:8000", profile="two_stage")
    with pytest.raises(InputError, match="its model elsewhere"):
        load_process_reward("openai+http://localhost:8000", local=LocalOptions(device="cuda"))


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_checkpoint_has_a_profile_of_its_own(name, caplog):
    assert load_process_reward(name).profile == load_profile(name)
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "profile", "remedy"),
    [("demo", "score_list", "use 'demo_no_think'"), ("demo_no_think", "two_stage", "use 'demo'")],
)
def test_a_packaged_checkpoint_that_is_asked_what_it_was_not_taught_is_warned_of(
    name, profile, remedy, caplog
):
    _warn_of_thinking.cache_clear()
    for _ in range(2):
        load_process_reward(name, profile=profile)
    (record,) = caplog.records
    assert remedy in record.message
    assert f"{profile!r}" in record.message


def test_a_server_is_taken_for_the_demo_where_the_profile_of_the_demo_is_named(caplog):
    for name in PACKAGED:
        load_process_reward("openai+http://127.0.0.1:9", profile=name)
    assert not caplog.records
    load_process_reward("openai+http://127.0.0.1:9", profile="two_stage")
    assert "profile import" in caplog.records[0].message


def test_a_packaged_profile_on_another_checkpoint_is_warned_of_once(tmp_path, caplog):
    for _ in range(2):
        load_process_reward(tmp_path / "mine", profile="multi_turn")
    load_process_reward("demo")
    load_process_reward(tmp_path / "mine", profile=load_profile_with_short_thinking())
    assert [r.message for r in caplog.records].count(caplog.records[0].message) == 1
    assert len(caplog.records) == 1
    assert "profile import" in caplog.records[0].message
