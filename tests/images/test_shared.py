import asyncio
import gc

import pytest

from tests.images.pictures import KEEP_SIZE, PNG, solid
from vrprm_reward.errors import ImageFormatError, MissingImageError
from vrprm_reward.images import final_pixels
from vrprm_reward.images import shared as module
from vrprm_reward.images.shared import SharedPixels


@pytest.fixture
def decoded(monkeypatch):
    """What is decoded, in order."""
    sources = []
    original = module.final_image

    def counted(source, *more):
        sources.append(source)
        return original(source, *more)

    monkeypatch.setattr(module, "final_image", counted)
    return sources


def test_a_source_is_decoded_once_and_is_one_object_whoever_asks(decoded, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    image = solid()

    async def ask():
        shared = SharedPixels(KEEP_SIZE)
        asked = [(PNG, path), (bytes(bytearray(PNG)), str(path)), (path, image), (image, PNG)]
        return await asyncio.gather(*(shared.of(sources) for sources in asked))

    found = asyncio.run(ask())
    assert len(decoded) == 3
    assert found[0][0] is found[1][0] is found[3][1]
    assert found[0][1] is found[1][1] is found[2][0]
    assert found[2] == (*final_pixels([path], KEEP_SIZE), *final_pixels([image], KEEP_SIZE))


def test_an_image_that_nobody_holds_is_let_go(decoded):
    async def ask():
        shared = SharedPixels(KEEP_SIZE)
        await shared.of([PNG])
        while shared._decoded:  # the thread that decoded it lets go in its own time
            await asyncio.sleep(0.005)
            gc.collect()
        await shared.of([PNG])

    asyncio.run(ask())
    assert len(decoded) == 2


def test_a_failure_is_shared_and_says_which_image_it_was(decoded):
    async def ask():
        shared = SharedPixels(KEEP_SIZE)
        asked = [shared.of([PNG, b"no image"]), shared.of([b"no image"])]
        first = await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(MissingImageError, match="no image"):
            await shared.of([])
        return [*first, *await asyncio.gather(shared.of([b"no image"]), return_exceptions=True)]

    errors = asyncio.run(ask())
    assert {type(error) for error in errors} == {ImageFormatError}
    assert [str(error)[:12] for error in errors] == ["image 2 of 2", *["image 1 of 1"] * 2]
    assert decoded.count(b"no image") == 1


def test_one_who_is_cancelled_leaves_the_image_to_the_others():
    async def ask():
        shared = SharedPixels(KEEP_SIZE)
        one, other = (asyncio.create_task(shared.of([PNG])) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        return await asyncio.gather(one, other, return_exceptions=True)

    first, second = asyncio.run(ask())
    assert isinstance(first, asyncio.CancelledError)
    assert second == final_pixels([PNG], KEEP_SIZE)
