"""Images of many problems -> final pixels, each source read and decoded once while it is in use."""

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

from vrprm_reward.errors import ImageError
from vrprm_reward.images.encoded import image_key
from vrprm_reward.images.final import FinalImage, check_sources, final_image, with_position
from vrprm_reward.images.settings import DEFAULT_SETTINGS, ImageSettings
from vrprm_reward.images.sizes import PixelLimits
from vrprm_reward.types import ImageSource


class SharedPixels:
    """Final pixels for rollouts that are scored at the same time, which mostly share their images.

    An image is let go when nobody holds it any more. Used from one event loop, for one call: what a
    path or URL holds may change between calls.

    Args:
        limits: the final size of every image.
        settings: which images are accepted.
    """

    def __init__(self, limits: PixelLimits, settings: ImageSettings = DEFAULT_SETTINGS) -> None:
        self._limits = limits
        self._settings = settings
        self._decoding: dict[object, asyncio.Task[FinalImage]] = {}
        self._decoded: WeakValueDictionary[object, FinalImage] = WeakValueDictionary()
        self._failed: dict[object, ImageError] = {}

    async def of(self, sources: Sequence[ImageSource]) -> tuple[FinalImage, ...]:
        """The images of one problem, in order; equal sources are one object.

        Raises:
            ImageError: as `final_pixels`.
        """
        check_sources(sources, self._settings)
        finals = []
        for position, source in enumerate(sources, start=1):
            try:
                finals.append(await self._one(source))
            except ImageError as error:
                raise with_position(error, position, len(sources)) from error
        return tuple(finals)

    async def _one(self, source: ImageSource) -> FinalImage:
        key = image_key(source)
        found = self._decoded.get(key)
        if found is not None:
            return found
        if key in self._failed:
            raise self._failed[key].with_traceback(None)
        task = self._decoding.get(key)
        if task is None:
            task = self._decoding[key] = asyncio.create_task(self._decode(key, source))
            # Seen, also when whoever asked is cancelled before it ends.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _decode(self, key: object, source: ImageSource) -> FinalImage:
        try:
            final = await asyncio.to_thread(final_image, source, self._limits, self._settings)
        except ImageError as error:
            self._failed[key] = error
            raise
        finally:
            del self._decoding[key]
        self._decoded[key] = final
        return final
