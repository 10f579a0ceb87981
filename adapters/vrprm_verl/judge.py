"""One rollout, as verl's reward loop hands it over -> its row: scored, rewarded, placed on tokens.

Nothing here is verl's: `reward.py` unpacks its batch into a `Sample`.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vrprm_reward import ProcessReward, ProcessScore, Rollout, load_process_reward
from vrprm_reward.client import RemoteProcessReward
from vrprm_reward.engines.openai.options import OpenAIOptions
from vrprm_reward.errors import InputError, VRPRMError
from vrprm_reward.rewards.combine import RolloutReward, outcome_reward, rollout_reward
from vrprm_reward.rewards.outcome import Outcome, OutcomeCheck, load_outcome
from vrprm_verl.prompt import ground_truth_of, note_of, problem_of, reference_of, why_unreadable
from vrprm_verl.row import Row, checksum
from vrprm_verl.settings import CUSTOM_FUNCTION, RewardSettings
from vrprm_verl.transcript import Transcript, read_transcript

_log = logging.getLogger(__name__)

ComputeScore = Callable[..., Any]
"""verl's reward function: data_source, solution_str, ground_truth, extra_info -> number or dict."""

UPSTREAM_KEY = "VRPRM_UPSTREAM_KEY"
"""Environment variable with the API key of OpenAI-compatible servers."""

_TURN_START = "<|im_start|>"


@dataclass(frozen=True)
class Sample:
    """What is known of one rollout."""

    ids: list[int]
    """The response's token ids without padding."""

    messages: Sequence[Mapping[str, Any]]
    """`raw_prompt`: the prompt with its images."""

    mask: Sequence[int] | None
    """For each token, whether the policy wrote it; None where verl does not tell."""

    extra_info: Mapping[str, Any]
    """The data set's `extra_info`."""

    reward_model: Any = None
    """The data set's `reward_model`, with the ground truth."""

    data_source: Any = None
    """The data set's `data_source`."""


class Judge:
    """Scores samples by the settings of a run. Made once in each reward worker.

    Args:
        settings: `reward.vrprm`.
        tokenizer: the policy's.
        reward: who judges the steps; `load_reward` makes it of the settings.
        compute_score: verl's reward function, for `outcome=custom_reward_function`.

    Raises:
        InputError: verl's function is to decide the outcome, and there is none.
        MissingExtraError: the outcome needs a package that is not installed.
    """

    def __init__(
        self,
        settings: RewardSettings,
        tokenizer: Any,
        reward: ProcessReward,
        compute_score: ComputeScore | None = None,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._compute_score = compute_score
        if settings.outcome == CUSTOM_FUNCTION and compute_score is None:
            raise InputError(
                "reward.vrprm.outcome=custom_reward_function needs "
                "reward.custom_reward_function.path and name"
            )
        self._reward = reward
        self._check = None if settings.outcome == CUSTOM_FUNCTION else _outcome_check(settings)
        self._told: set[str] = set()
        self._told_splits: set[str] = set()
        self._places = asyncio.Semaphore(settings.max_concurrency)
        self._answered = time.monotonic()

    async def row(self, sample: Sample) -> Row:
        """The row of one rollout. Never raises for whatever happens to it: verl would lose the
        whole group without stopping (V1), or end the training (V0)."""
        arrived = time.monotonic()
        async with self._places:
            # The time of a rollout begins here: a colocated reward model gets all of a batch at
            # once. Where nothing was answered all the while, the rest need not wait their turns.
            started = time.monotonic()
            lost = started - max(arrived, self._answered) > self._settings.timeout
            row = await self._row(sample, started, self._settings.timeout if not lost else 0.0)
            if not row.reward.masked:
                self._answered = time.monotonic()
        return row

    async def _row(self, sample: Sample, started: float, seconds: float) -> Row:
        validation = self._is_validation(sample)
        transcript: Transcript | None = None
        try:
            async with asyncio.timeout(seconds):
                transcript = await asyncio.to_thread(self._read, sample)
                reward = await self._rewarded(sample, transcript, validation)
        except TimeoutError:
            detail = f"no score within {self._settings.timeout:g} s, or the reward server is gone"
            reward = _masked("timeout", detail)
        except VRPRMError as error:
            reward = _masked(error.code, str(error))
        except Exception as error:  # noqa: BLE001  said above; it is logged whole and counted
            _log.exception("scoring a rollout failed; it is masked")
            reward = _masked("adapter_error", f"{type(error).__name__}: {error}")
        self._tell(reward)
        tokens = _tokens(reward, transcript)
        if len(tokens) != len(reward.rewards):
            reward, tokens = _masked("no_policy_token", "the policy wrote no token"), ()
        last = None if transcript is None else transcript.last
        seconds = time.monotonic() - started
        alone = validation and not reward.steps
        return Row(reward, tokens, checksum(sample.ids), seconds, alone, last)

    def _read(self, sample: Sample) -> Transcript:
        mask = sample.mask
        if mask is None:
            mask = note_of(sample.messages).get("masks", {}).get(str(checksum(sample.ids)))
        if mask is None:
            if self._tokenizer.convert_tokens_to_ids(_TURN_START) in sample.ids:
                raise InputError(
                    "the response has several turns and nothing says which tokens a tool wrote: "
                    "use the agent loops or the agent loop manager of vrprm_verl"
                )
            mask = [1] * len(sample.ids)
        return read_transcript(sample.ids, mask, self._tokenizer, self._settings.steps)

    async def _rewarded(
        self, sample: Sample, transcript: Transcript, validation: bool
    ) -> RolloutReward:
        settings = self._settings
        if not validation and settings.needs_process:
            score, outcome = await asyncio.gather(
                self._process(sample, transcript), self._outcome(sample, transcript)
            )
            return rollout_reward(score, outcome, settings)
        outcome = await self._outcome(sample, transcript)
        if outcome.value is None and not settings.needs_outcome:
            # The process scores are all that such a rule goes by: without them a validation would
            # show the same 0 whatever the policy writes.
            return rollout_reward(await self._process(sample, transcript), outcome, settings)
        if settings.needs_process:
            self._tell_split(str(_extra_info(sample)["split"]))
        return outcome_reward(outcome, settings)

    async def _process(self, sample: Sample, transcript: Transcript) -> ProcessScore:
        if not transcript.steps:
            detail = "there is nothing to judge in the part of the response that is judged"
            return ProcessScore(status="unscored_response", reason="response_empty", detail=detail)
        rollout = Rollout(
            problem=problem_of(
                sample.messages,
                _extra_info(sample),
                reference_of(_ground_truth(sample)),
                self._settings.question_key,
            ),
            response=transcript.text,
            steps=transcript.steps,
        )
        (score,) = await self._reward.ascore([rollout])
        return score

    async def _outcome(self, sample: Sample, transcript: Transcript) -> Outcome:
        truth = _ground_truth(sample)
        if self._check is not None:
            why = why_unreadable(truth, self._settings.outcome)
            if why is not None and self._settings.outcome != "none":
                return Outcome(None, "reference_unreadable", why)
            return await self._check.acheck(transcript.policy_text, reference_of(truth))
        assert self._compute_score is not None
        function = partial(
            _call_compute_score, self._compute_score, sample, _extra_info(sample), truth
        )
        # verl's function gets verl's ground truth, whatever it is; there need not be any.
        check = load_outcome(function, timeout=self._settings.outcome_timeout)
        return await check.acheck(transcript.policy_text, "")

    def _is_validation(self, sample: Sample) -> bool:
        if self._settings.validation == "full":
            return False
        return _extra_info(sample).get("split") in self._settings.validation_splits

    def _tell_split(self, split: str) -> None:
        """Log once which rows are not judged. As a warning: Ray's workers show nothing below."""
        if split not in self._told_splits:
            self._told_splits.add(split)
            _log.warning(
                "rows whose extra_info.split is %r are taken for validation rows: they are "
                "rewarded by their outcome alone, and their steps are not judged. If they are to "
                "be trained on, set +reward.vrprm.validation=full",
                split,
            )

    def _tell(self, reward: RolloutReward) -> None:
        """Log each reason once with its sentence; the counts are in the metrics."""
        if reward.masked and reward.reason is not None and reward.reason not in self._told:
            self._told.add(reward.reason)
            _log.error(
                "a rollout has no score (%s): %s. Further ones are only counted",
                reward.reason,
                reward.detail,
            )


def load_reward(settings: RewardSettings, router: str | None) -> ProcessReward:
    """The reward model that the settings name, or verl's own servers.

    Raises:
        InputError: neither is there.
    """
    url = settings.url
    if url is not None and not url.startswith("openai+"):
        return RemoteProcessReward(
            url,
            # A little less, so that the reason is the client's, which knows more.
            total_timeout=0.95 * settings.timeout,
            max_concurrency=settings.max_concurrency,
            images=settings.images,
        )
    if url is None and router is None:
        raise InputError(
            "nobody is named who could score: set +reward.vrprm.url=http://host:port (vrprm-reward "
            "serve) or openai+http://host:port/v1, or let verl host the reward model "
            "(reward.reward_model.enable=True)"
        )
    options = OpenAIOptions(
        model=settings.model,
        api_key=None if url is None else os.environ.get(UPSTREAM_KEY),
        max_in_flight=settings.max_concurrency,
        total_timeout=settings.timeout,
        check_template=settings.check_template,
        # verl's router sends every request to another replica, which has not seen the image.
        image_references=url is not None,
    )
    return load_process_reward(
        url or f"openai+http://{router}/v1",
        profile=settings.profile,
        images=settings.images,
        openai=options,
    )


def _outcome_check(settings: RewardSettings) -> OutcomeCheck:
    return load_outcome(
        settings.outcome, timeout=settings.outcome_timeout, workers=settings.outcome_workers
    )


def _call_compute_score(
    compute_score: ComputeScore,
    sample: Sample,
    extra_info: Mapping[str, Any],
    ground_truth: Any,
    response: str,
    reference: str,  # noqa: ARG001  the ground truth as text, for other functions
) -> Any:
    found = compute_score(
        data_source=sample.data_source,
        solution_str=response,
        ground_truth=ground_truth,
        extra_info=dict(extra_info),
    )
    if asyncio.iscoroutine(found):
        found = asyncio.run(found)
    if isinstance(found, Mapping):
        return found.get("acc", found.get("score"))
    return found


def _extra_info(sample: Sample) -> Mapping[str, Any]:
    return sample.extra_info or note_of(sample.messages).get("extra_info", {})


def _ground_truth(sample: Sample) -> Any:
    found = ground_truth_of(sample.reward_model)
    return found if found is not None else note_of(sample.messages).get("ground_truth")


def _tokens(reward: RolloutReward, transcript: Transcript | None) -> tuple[int, ...]:
    if transcript is None or not reward.rewards:
        return ()
    if reward.steps:
        return transcript.tokens
    return () if transcript.last is None else (transcript.last,)


def _masked(reason: str, detail: str) -> RolloutReward:
    return RolloutReward("unscored_ours", (), (), (), None, reason, detail)
