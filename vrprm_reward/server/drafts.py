"""Requests -> rollouts, images -> bytes, and rollouts -> scores.

The reward model never sees a path or a URL: the server reads images itself, under its own
settings. What a request shows by itself (a source that is off, a `data:` URL that holds no usable
image) refuses the request; what only a file or a distant server shows is the state of one rollout.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from vrprm_reward.errors import ImageError, ImageLimitError, ImageSourceError, StepError, VRPRMError
from vrprm_reward.images import ImageSettings
from vrprm_reward.images.encoded import encoded_image
from vrprm_reward.images.urls import ANY_HOST, path_of_file_url
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.server.schema import ErrorItem, Refusal, RolloutItem
from vrprm_reward.steps import locate_steps
from vrprm_reward.types import ImageSource, Problem, ProcessScore, Rollout, Step

_log = logging.getLogger(__name__)

_SCHEME = re.compile(r"(data:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)

Draft = Rollout | ProcessScore
"""A rollout to be scored, or the score of one that cannot be."""


def unscored(reason: str, detail: str) -> ProcessScore:
    """The score of a rollout that our side could not score."""
    return ProcessScore(status="unscored_ours", reason=reason, detail=detail)


@dataclass
class ImageGate:
    """The images of one request, checked as far as the request alone allows.

    Equal references are looked at once.
    """

    settings: ImageSettings
    passed: dict[str, ImageSource] = field(default_factory=dict)

    def check(self, references: Sequence[str]) -> tuple[ImageSource, ...]:
        """The images of one rollout: bytes where they came along, else references to be read.

        Resolves symbolic links; call it in a thread.

        Raises:
            ImageError: its message holds nothing about this machine.
        """
        limit = self.settings.max_images
        if len(references) > limit:
            raise ImageLimitError(f"{len(references)} images where {limit} are allowed")
        return tuple(self._pass(reference) for reference in references)

    def _pass(self, reference: str) -> ImageSource:
        found = self.passed.get(reference)
        if found is None:
            found = self.passed[reference] = self._checked(reference)
        return found

    def _checked(self, reference: str) -> ImageSource:
        scheme = _SCHEME.match(reference)
        kind = scheme[0].lower() if scheme else "file://"
        if kind == "data:":
            return encoded_image(reference, self.settings).data
        if kind in ("http://", "https://"):
            self._check_host(reference)
        elif kind == "file://":
            self._check_path(reference, is_url=scheme is not None)
        else:
            raise ImageSourceError("this kind of URL is not read: send a data: URL")
        return reference

    def _check_host(self, url: str) -> None:
        if not self.settings.allow_urls:
            raise ImageSourceError("this server fetches no URLs: send a data: URL")
        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None
        hosts = self.settings.url_hosts
        if ANY_HOST not in hosts and (host or "").lower() not in hosts:
            raise ImageSourceError("this server does not fetch from that host: send a data: URL")

    def _check_path(self, reference: str, *, is_url: bool) -> None:
        settings = self.settings
        if not settings.allow_paths:
            raise ImageSourceError("this server reads no paths: send a data: URL")
        refused = ImageSourceError("this server does not read files from there: send a data: URL")
        try:
            place = path_of_file_url(reference) if is_url else reference
            path = ((settings.root or Path()) / place).resolve()
            folders = settings.allowed_folders
            inside = folders is None or any(path.is_relative_to(f.resolve()) for f in folders)
        except (OSError, ValueError, RuntimeError):
            # A NUL in the path, symbolic links in a circle, another machine in a file:// URL.
            raise refused from None
        if not inside:
            raise refused


def draft_items(items: Sequence[RolloutItem], images: ImageSettings) -> list[Draft]:
    """The rollouts of a request to `/v1/score`. Blocks; call it in a thread.

    Raises:
        Refusal: 422 with the index and the field of everything that is wrong.
    """
    gate = ImageGate(images)
    drafts: list[Draft] = []
    wrong: list[ErrorItem] = []
    for index, item in enumerate(items):
        problem: tuple[str, VRPRMError] | None = None
        try:
            sources = gate.check(item.images)
            drafts.append(
                Rollout(
                    problem=Problem(
                        question=item.question,
                        images=sources,
                        reference_answer=item.reference_answer,
                    ),
                    response=item.response,
                    steps=_steps(item),
                )
            )
        except ImageError as error:
            problem = ("images", error)
        except StepError as error:
            problem = ("steps", error)
        except ValidationError:
            problem = ("steps", StepError("spans overlap or are out of order"))
        if problem is not None:
            name, why = problem
            wrong.append(ErrorItem(index=index, field=name, code=why.code, message=str(why)))
    if wrong:
        raise Refusal(422, wrong[0].code, "rollouts of the request cannot be used", items=wrong)
    return drafts


def _steps(item: RolloutItem) -> tuple[Step, ...] | None:
    if item.steps is None:
        return None
    texts = [step for step in item.steps if isinstance(step, str)]
    if texts:
        return locate_steps(item.response, texts)
    spans = [step for step in item.steps if not isinstance(step, str)]
    for index, span in enumerate(spans):
        if not span.start < span.end <= len(item.response):
            raise StepError(f"step {index} is empty or ends after the response")
    return tuple(
        Step(text=item.response[span.start : span.end], start=span.start, end=span.end)
        for span in spans
    )


async def score_drafts(
    reward: ProcessReward,
    drafts: Sequence[Draft],
    images: ImageSettings,
    *,
    threads: Executor,
    count_images: Callable[[int], None],
) -> list[ProcessScore]:
    """Scores in the order of the drafts. Raises nothing: what fails is an unscored rollout."""
    files = await _read_images(drafts, images, threads)
    complete = [_with_bytes(draft, files) for draft in drafts]
    rollouts = [draft for draft in complete if isinstance(draft, Rollout)]
    count_images(sum(len(rollout.problem.images) for rollout in rollouts))
    found: Iterator[ProcessScore] = iter(await _scores(reward, rollouts) if rollouts else ())
    scores = [draft if isinstance(draft, ProcessScore) else next(found) for draft in complete]
    for score in scores:
        if score.status == "unscored_ours":
            _log.warning("unscored: %s: %s", score.reason, score.detail)
    return scores


async def _scores(reward: ProcessReward, rollouts: Sequence[Rollout]) -> Sequence[ProcessScore]:
    try:
        scores = await reward.ascore(rollouts)
        if len(scores) != len(rollouts):
            raise RuntimeError(f"{len(rollouts)} rollouts were answered by {len(scores)} scores")
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody here gave the work up: it came out of the reward.
        _log.exception("scoring %d rollouts was cancelled from within", len(rollouts))
        return [unscored("unexpected", "the reward was cancelled from within")] * len(rollouts)
    except Exception as error:  # noqa: BLE001  one request must not lose its neighbours
        _log.exception("scoring %d rollouts failed", len(rollouts))
        code = error.code if isinstance(error, VRPRMError) else "unexpected"
        return [unscored(code, str(error))] * len(rollouts)
    return scores


async def _read_images(
    drafts: Sequence[Draft], settings: ImageSettings, threads: Executor
) -> dict[str, bytes | ImageError]:
    """The files behind paths and URLs, or why there is none; each is read once."""
    loop = asyncio.get_running_loop()
    rollouts = [draft for draft in drafts if isinstance(draft, Rollout)]
    images = [image for rollout in rollouts for image in rollout.problem.images]
    references = list(dict.fromkeys(image for image in images if isinstance(image, str)))

    def read(reference: str) -> bytes | ImageError:
        try:
            return encoded_image(reference, settings).data
        except ImageError as error:
            return error
        except Exception:  # noqa: BLE001  one image must not lose the others
            _log.exception("an image could not be read")
            return ImageError("it could not be read; see the server's log")

    found = await asyncio.gather(*(loop.run_in_executor(threads, read, r) for r in references))
    return dict(zip(references, found, strict=True))


def _with_bytes(draft: Draft, files: Mapping[str, bytes | ImageError]) -> Draft:
    if isinstance(draft, ProcessScore):
        return draft
    images: list[ImageSource] = []
    for image in draft.problem.images:
        found = files[image] if isinstance(image, str) else image
        if isinstance(found, ImageError):
            return unscored(found.code, str(found))
        images.append(found)
    problem = draft.problem.model_copy(update={"images": tuple(images)})
    return draft.model_copy(update={"problem": problem})
