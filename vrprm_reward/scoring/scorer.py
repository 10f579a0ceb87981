"""The VRPRM scorer: a `ProcessReward` that asks an engine in the way a profile says."""

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from vrprm_reward.background import BackgroundLoop
from vrprm_reward.blank import is_blank
from vrprm_reward.engines.engine import Engine, Generation
from vrprm_reward.errors import (
    EngineError,
    InputError,
    PromptTooLongError,
    ResponseError,
    VRPRMError,
)
from vrprm_reward.images import FinalImage, ImageSettings
from vrprm_reward.images.shared import SharedPixels
from vrprm_reward.scoring.draft import drafted_verdicts
from vrprm_reward.scoring.finished import FinishedScores, score_key
from vrprm_reward.scoring.frames import FRAMES, think_prompt
from vrprm_reward.scoring.parse import Thought, probability
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import Case
from vrprm_reward.scoring.schedule import Schedule, Schedules, at_once, fixed_point, lockstep
from vrprm_reward.scoring.too_long import raise_if_cut_by_context, told_apart
from vrprm_reward.scoring.untrusted import Neutraliser, ShownText
from vrprm_reward.steps import Splitter, StepSettings, split_steps, split_with
from vrprm_reward.types import (
    ProcessScore,
    Rollout,
    Status,
    Step,
    Usage,
    check_is_text,
    checked_rollouts,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ROLLOUTS_IN_FLIGHT = 512
"""Coroutines at work at one time; more wait, with their images still unread."""


class VRPRMScorer:
    """Scores rollouts with a VRPRM checkpoint.

    The engine is made by `make_engine` when it is first needed, once per process, so a scorer
    pickles as long as `make_engine` does.

    Args:
        make_engine: returns the engine. A picklable callable, such as a `functools.partial`.
        profile: how the checkpoint is spoken to.
        steps: how responses without ready-made steps are divided; settings or a callable.
        images: limits on what is read.
        schedule: order of the judgements; `auto` lets the engine choose. All give the same scores.
            A deterministic engine is always asked in lockstep.
        keep_scores: how many finished scores are kept for rollouts that come again, keyed by
            content, profile and checkpoint. 0: none.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        profile: Profile,
        *,
        steps: StepSettings | Splitter = StepSettings(),  # noqa: B008  frozen
        images: ImageSettings = ImageSettings(),  # noqa: B008  frozen
        schedule: Schedule = "auto",
        keep_scores: int = 0,
    ) -> None:
        self.profile = profile
        self._make_engine = make_engine
        self._steps = steps
        self._images = images
        self._frame = FRAMES[profile.frame]
        self._schedule = schedule
        self._finished = FinishedScores(keep_scores)
        self._engine: Engine | None = None
        self._engine_lock = threading.Lock()
        self._loop = BackgroundLoop()

    @property
    def engine(self) -> Engine:
        """The engine, made now if it is not there yet."""
        with self._engine_lock:
            if self._engine is None:
                self._engine = self._make_engine()
            return self._engine

    def score(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """Score rollouts; the result is in their order. Works inside a running event loop too.

        Raises:
            InputError: something in `rollouts` is no `Rollout`.
            CheckpointError: the model cannot be loaded. Trouble with single rollouts is never
                raised: they come back unscored with a reason.
            EngineClosedError: `close` was called meanwhile.
        """
        return self._loop.run(self.ascore(rollouts))

    async def ascore(self, rollouts: Sequence[Rollout]) -> list[ProcessScore]:
        """As `score`, for coroutines. Equal rollouts are computed once."""
        rollouts = checked_rollouts(rollouts)
        engine = await asyncio.to_thread(lambda: self.engine)
        keys = [_content_key(rollout) for rollout in rollouts]
        distinct = dict(zip(keys, rollouts, strict=True))
        found: dict[str, ProcessScore] = {}
        pixels = SharedPixels(self.profile.pixels, self._images)
        if engine.deterministic:
            for wave in batched(distinct.items(), MAX_ROLLOUTS_IN_FLIGHT):
                shares = {key: object() for key, _ in wave}
                for share in shares.values():
                    engine.expect(share)
                await _all(
                    self._score_into(found, key, engine, rollout, pixels, shares[key], len(wave))
                    for key, rollout in wave
                )
        else:
            places = asyncio.Semaphore(MAX_ROLLOUTS_IN_FLIGHT)
            at_work = min(len(distinct), MAX_ROLLOUTS_IN_FLIGHT)

            async def in_place(key: str, rollout: Rollout) -> None:
                async with places:
                    share = object()
                    engine.expect(share)
                    await self._score_into(found, key, engine, rollout, pixels, share, at_work)

            await _all(in_place(key, rollout) for key, rollout in distinct.items())
        return [found[key] for key in keys]

    def close(self) -> None:
        """Free the engine, and end calls of `score` under way. Scoring again loads it again."""
        with self._engine_lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        self._loop.close()

    def __getstate__(self) -> dict[str, Any]:
        process_state = ("_engine", "_engine_lock", "_loop")
        return {k: v for k, v in self.__dict__.items() if k not in process_state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._engine = None
        self._engine_lock = threading.Lock()
        self._loop = BackgroundLoop()

    async def _score_into(
        self,
        found: dict[str, ProcessScore],
        key: str,
        engine: Engine,
        rollout: Rollout,
        pixels: SharedPixels,
        share: object,
        at_work: int,
    ) -> None:
        """Score one rollout, come what may; `at_work` rollouts are scored at the same time."""
        steps: tuple[Step, ...] = ()
        try:
            steps = await asyncio.to_thread(self._split, rollout)
            found[key] = await self._score_steps(engine, rollout, steps, pixels, share, at_work)
        except ResponseError as error:
            found[key] = _unscored("unscored_response", error.reason, error, steps)
        except PromptTooLongError as error:
            found[key] = _unscored("unscored_response", error.code, error, steps)
        except (InputError, EngineError) as error:
            found[key] = _unscored("unscored_ours", error.code, error, steps)
        except Exception as error:  # noqa: BLE001  one rollout must not lose its neighbours
            _log.exception("scoring a rollout failed unexpectedly")
            found[key] = _unscored("unscored_ours", "unexpected", error, steps)
        finally:
            engine.release(share)

    def _shown(self, engine: Engine) -> ShownText:
        """What untrusted text becomes before it is shown to the engine."""
        return Neutraliser(self.profile, engine.added_tokens)

    def _order(self, engine: Engine, steps: int, at_work: int) -> Callable[..., Any]:
        if engine.deterministic:
            return lockstep  # what is asked for at once arrives in an order that timing decides
        if self._frame.independent:
            return at_once
        at_fixed_point = self._schedule == "fixed_point" or (
            self._schedule == "auto" and engine.fixed_point_pays(rollouts=at_work, steps=steps)
        )
        return fixed_point if at_fixed_point else lockstep

    async def _score_steps(
        self,
        engine: Engine,
        rollout: Rollout,
        steps: tuple[Step, ...],
        pixels: SharedPixels,
        share: object,
        at_work: int,
    ) -> ProcessScore:
        profile = self.profile
        safe = self._shown(engine)
        pictures = await pixels.of(rollout.problem.images)
        key = score_key(engine.identity, profile, rollout, steps, pictures)
        kept = self._finished.get(key)
        if kept is not None:
            return kept.model_copy(update={"usage": Usage()})
        case = await asyncio.to_thread(self._safe_case, safe, rollout, steps, pictures)
        thought, usage = await self._think(engine, case, safe, share)
        shown_thought = replace(thought, text=safe.text(thought.text))
        tokens: list[int] = []

        async def ask(verdicts: Sequence[int]) -> float:
            prompt = self._frame.judge(profile, case, shown_thought, verdicts)
            judgement = await engine.judge(prompt, share=share)
            tokens.append(judgement.prompt_tokens)
            return probability(judgement)

        async def ask_for_short(short: Case) -> int:
            prompt = self._frame.judge(profile, short, shown_thought, ())
            return (await engine.judge(prompt, share=share)).prompt_tokens

        draft = drafted_verdicts(thought.text, len(steps), profile.steps.first_number)
        order = self._order(engine, len(steps), at_work)
        async with told_apart(case, ask_for_short):
            found: Schedules = await order(ask, len(steps), draft)
        score = ProcessScore(
            status="scored",
            steps=steps,
            p_correct=found.p_correct,
            thinking=thought.text if profile.think else None,
            flags=thought.flags,
            usage=usage
            + Usage(prompt_tokens=sum(tokens), requests=found.requests, rounds=found.rounds),
        )
        self._finished.put(key, score)
        return score

    def _safe_case(
        self,
        safe: ShownText,
        rollout: Rollout,
        steps: tuple[Step, ...],
        pictures: tuple[FinalImage, ...],
    ) -> Case:
        problem = rollout.problem
        shown = self.profile.show_reference and problem.reference_answer is not None
        return Case(
            question=safe.text(problem.question),
            steps=tuple(safe.step(index, step.text) for index, step in enumerate(steps)),
            images=pictures,
            reference_answer=safe.text(problem.reference_answer or "") if shown else None,
        )

    async def _think(
        self, engine: Engine, case: Case, safe: ShownText, share: object
    ) -> tuple[Thought, Usage]:
        rules = self.profile.think
        if rules is None:
            return Thought(""), Usage()

        async def think(shown: Case, max_tokens: int) -> Generation:
            prompt, stop = think_prompt(self.profile, shown), self._frame.stop(self.profile)
            return await engine.generate(prompt, max_tokens=max_tokens, stop=stop, share=share)

        async def think_of_short(short: Case) -> int:
            return (await think(short, 1)).prompt_tokens

        async with told_apart(case, think_of_short):
            generation = await think(case, rules.max_tokens)
            raise_if_cut_by_context(generation, rules.max_tokens)
        generation = replace(generation, text=safe.generated(generation.text))
        thought = self._frame.read(generation, self.profile, case)
        if rules.truncated == "unscore" and "thinking_truncated" in thought.flags:
            raise EngineError(
                f"the thinking did not end within {generation.generated_tokens} tokens and the "
                "profile says think.truncated = 'unscore'; raise think.max_tokens"
            )
        usage = Usage(
            prompt_tokens=generation.prompt_tokens,
            generated_tokens=generation.generated_tokens,
            requests=1,
        )
        return thought, usage

    def _split(self, rollout: Rollout) -> tuple[Step, ...]:
        check_is_text(rollout.response)
        if rollout.steps is not None:
            steps = rollout.steps
        elif isinstance(self._steps, StepSettings):
            steps = split_steps(rollout.response, self._steps)
        else:
            steps = split_with(rollout.response, self._steps)
        if all(is_blank(step.text) for step in steps):
            raise ResponseError(
                "the response has no steps to judge: it is empty or blank in the part that is "
                "judged",
                code="response_empty",
            )
        limit = self.profile.steps.max_steps
        if len(steps) > limit:
            raise ResponseError(
                f"the response has {len(steps)} steps and the profile allows {limit} "
                "(steps.max_steps)",
                code="too_many_steps",
            )
        return steps


def _unscored(
    status: Status, reason: str, error: Exception, steps: tuple[Step, ...]
) -> ProcessScore:
    known = isinstance(error, VRPRMError)
    detail = str(error) if known else f"{type(error).__name__}: {error}"
    return ProcessScore(status=status, steps=steps, reason=reason, detail=detail)


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Pieces of at most `size`, in order; itertools has this from Python 3.12 on."""
    rest = iter(items)
    while piece := tuple(islice(rest, size)):
        yield piece


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them; when this is cancelled, so are they."""
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


def _content_key(rollout: Rollout) -> str:
    """Equal only for rollouts that must get equal scores within one call."""
    images = []
    for image in rollout.problem.images:
        if isinstance(image, bytes):
            images.append(hashlib.sha256(image).hexdigest())
        elif isinstance(image, str):
            images.append(f"name {image}")
        elif hasattr(image, "__fspath__"):
            images.append(f"name {image.__fspath__()}")
        else:
            images.append(f"object {id(image)}")
    steps = None if rollout.steps is None else [(s.start, s.end) for s in rollout.steps]
    problem = rollout.problem
    return json.dumps([problem.question, problem.reference_answer, images, rollout.response, steps])
