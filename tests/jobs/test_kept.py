import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.jobs.doubles import LengthReward
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.journal import Journal
from vrprm_reward.jobs.kept import KeptReward
from vrprm_reward.jobs.keys import checkpoint_fingerprint, image_digest, rollout_key
from vrprm_reward.types import Problem, Rollout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"a picture")
    (tmp_path / "same.png").write_bytes(b"a picture")
    (tmp_path / "b.png").write_bytes(b"another picture")
    return tmp_path


def rollout(response: str = "One.\n\nTwo.", image: object = "a.png", **more: object) -> Rollout:
    problem = Problem.model_validate({"question": "?", "images": [image], **more})
    return Rollout(problem=problem, response=response)


def kept(reward: LengthReward, journal: Journal, folder: Path, asker: str = "m") -> KeptReward:
    return KeptReward(reward, journal, ImageSettings(root=folder), asker)


def test_only_what_is_not_kept_is_asked_for_and_the_order_stays(folder: Path) -> None:
    reward = LengthReward()
    with Journal(folder / "j") as journal:
        first = kept(reward, journal, folder).score([rollout("a"), rollout("b")])
        again = kept(reward, journal, folder)
        scores = again.score([rollout("b"), rollout("cc"), rollout("a"), rollout("cc")])
    assert reward.seen == ["a", "b", "cc"]
    assert [scores[2], scores[0]] == first
    assert scores[1] == scores[3]
    assert again.computed == 1


def test_coroutines_get_the_same(folder: Path) -> None:
    reward = LengthReward()
    with Journal(None) as journal:
        each = kept(reward, journal, folder)
        (one,) = each.score([rollout("a")])
        assert asyncio.run(each.ascore([rollout("b"), rollout("a")]))[1] == one
    assert reward.seen == ["a", "b"]


def test_a_score_of_another_model_does_not_count(folder: Path) -> None:
    reward = LengthReward()
    with Journal(None) as journal:
        kept(reward, journal, folder, "model 1").score([rollout()])
        kept(reward, journal, folder, "model 2").score([rollout()])
    assert len(reward.seen) == 2


def test_what_failed_by_our_fault_is_tried_again_by_the_next_job_only(folder: Path) -> None:
    reward = LengthReward()
    with Journal(folder / "j") as journal:
        each = kept(reward, journal, folder)
        each.score([rollout("fail"), rollout(""), rollout("fine")])
        assert [s.status for s in each.score([rollout("fail")])] == ["unscored_ours"]
    assert reward.seen == ["fail", "", "fine"]
    reward.working = False
    with Journal(folder / "j") as journal:
        scores = kept(reward, journal, folder).score(
            [rollout("fail"), rollout(""), rollout("fine")]
        )
    assert [s.status for s in scores] == ["scored", "unscored_response", "scored"]
    assert reward.seen[3:] == ["fail"]


def test_half_a_surrogate_pair_in_the_thinking_survives(folder: Path) -> None:
    class Odd(LengthReward):
        def _score(self, rollout: Rollout):
            return super()._score(rollout).model_copy(update={"thinking": "a\ud83d"})

    with Journal(folder / "j") as journal:
        kept(Odd(), journal, folder).score([rollout()])
    with Journal(folder / "j") as journal:
        (score,) = kept(Odd(), journal, folder).score([rollout()])
    assert score.thinking == "a\ud83d"


def test_what_another_thread_is_asking_for_is_waited_for_and_not_asked_again(
    folder: Path,
) -> None:
    class Slow(LengthReward):
        def __init__(self) -> None:
            super().__init__()
            self.begun, self.go_on = threading.Event(), threading.Event()

        def score(self, rollouts):
            if rollouts[0].response == "slow":
                self.begun.set()
                assert self.go_on.wait(30)
            return super().score(rollouts)

    reward = Slow()
    with Journal(None) as journal, ThreadPoolExecutor(3) as threads:
        each = kept(reward, journal, folder)
        first = threads.submit(each.score, [rollout("slow")])
        assert reward.begun.wait(30)
        second = threads.submit(each.score, [rollout("slow"), rollout("quick")])
        third = threads.submit(lambda: asyncio.run(each.ascore([rollout("slow")])))
        while "quick" not in reward.seen:
            time.sleep(0.001)
        reward.go_on.set()
        assert first.result()[0] == second.result()[0] == third.result()[0]
    assert sorted(reward.seen) == ["quick", "slow"]
    assert each.computed == 2


def test_those_who_wait_get_the_exception_too(folder: Path) -> None:
    class Breaking(LengthReward):
        def __init__(self) -> None:
            super().__init__()
            self.begun, self.go_on = threading.Event(), threading.Event()

        def score(self, rollouts):
            self.begun.set()
            assert self.go_on.wait(30)
            raise RuntimeError("down")

    reward = Breaking()
    with Journal(None) as journal, ThreadPoolExecutor(2) as threads:
        each = kept(reward, journal, folder)
        first = threads.submit(each.score, [rollout()])
        assert reward.begun.wait(30)
        second = threads.submit(each.score, [rollout()])
        reward.go_on.set()
        for waiting in (first, second):
            with pytest.raises(RuntimeError, match="down"):
                waiting.result()


class TestKeys:
    def key(self, folder: Path, **more: object) -> bytes:
        return rollout_key(rollout(**more), ImageSettings(root=folder), "m")  # type: ignore[arg-type]

    def test_the_contents_of_an_image_count_and_its_name_does_not(self, folder: Path) -> None:
        assert self.key(folder, image="a.png") == self.key(folder, image="same.png")
        assert self.key(folder, image="a.png") == self.key(folder, image=str(folder / "a.png"))
        assert self.key(folder, image="a.png") == self.key(folder, image=b"a picture")
        assert self.key(folder, image="a.png") != self.key(folder, image="b.png")

    def test_a_file_that_changes_is_another_image(self, folder: Path) -> None:
        before = self.key(folder)
        (folder / "a.png").write_bytes(b"a changed picture")
        assert self.key(folder) != before

    @pytest.mark.parametrize(
        "more", [{"response": "x"}, {"question": "!"}, {"reference_answer": "3"}]
    )
    def test_everything_that_decides_a_score_counts(
        self, folder: Path, more: dict[str, object]
    ) -> None:
        assert self.key(folder, **more) != self.key(folder)

    def test_pixels_of_images_in_memory_count(self) -> None:
        red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
        settings = ImageSettings()
        assert image_digest(red, settings) == image_digest(red.copy(), settings)
        assert image_digest(red, settings) != image_digest(blue, settings)

    def test_an_address_or_a_missing_file_counts_by_name(self, folder: Path) -> None:
        settings = ImageSettings(root=folder)
        assert image_digest("http://x.org/a.png", settings) == "name http://x.org/a.png"
        assert image_digest("gone.png", settings) == "name gone.png"

    def test_a_checkpoint_that_was_trained_on_is_another_one(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"1")
        before = checkpoint_fingerprint(str(tmp_path))
        assert checkpoint_fingerprint(str(tmp_path)) == before
        (tmp_path / "model.safetensors").write_bytes(b"22")
        assert checkpoint_fingerprint(str(tmp_path)) != before
        assert checkpoint_fingerprint("http://host:1") == "http://host:1"
