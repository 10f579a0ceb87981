"""OpenRLHF's remote reward model: its requests -> rollouts, scores -> its answers.

Its client sends no images and no response: the response is what is left of `query` when the
prompt is taken off, and question, images and answer stand in the label. A rollout whose own data
are bad is unscored; a label of the wrong kind is a mistake in the run's settings, and refused.
"""

import json
import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from vrprm_reward.errors import ImageError, ImageSourceError
from vrprm_reward.images import ImageSettings
from vrprm_reward.server.drafts import Draft, ImageGate, unscored
from vrprm_reward.server.schema import ErrorItem, Refusal, RewardRequest, RewardResponse
from vrprm_reward.types import Problem, ProcessScore, Rollout

LOWEST_REWARD = 0.0
"""The least that a scored rollout can get; the mean of probabilities."""

# In `query` a processor has expanded the one token per image that stands in `prompts`.
_REPEATED = re.compile(r"(<\|?[A-Za-z_]{1,40}\|?>)\1+")
# A tokenizer may put its begin-of-text token before the prompt when it decodes.
_LEADING = re.compile(r"(?:<\|?[A-Za-z_]{1,40}\|?>|\s)*")
_ENDINGS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
    "<pad>",
)


def draft_queries(request: RewardRequest, images: ImageSettings) -> list[Draft]:
    """The rollouts of a request to `/get_reward`. Blocks; call it in a thread.

    Raises:
        Refusal: 422: lists of unequal length, labels that cannot carry a problem, or images from
            where this server does not read. These are the same for every row of a run.
    """
    queries, prompts, labels = request.query, request.prompts, request.labels
    if not len(queries) == len(prompts) == len(labels):
        raise Refusal(
            422,
            "lengths",
            f"query, prompts and labels have {len(queries)}, {len(prompts)} and {len(labels)} "
            "entries: send one of each for every rollout",
        )
    gate = ImageGate(images)
    drafts: list[Draft] = []
    wrong: list[ErrorItem] = []
    for index, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        try:
            drafts.append(_draft(query, prompt, _label(label), gate))
        except _LabelError as error:
            wrong.append(ErrorItem(index=index, field="labels", code="label", message=str(error)))
        except ImageSourceError as error:
            wrong.append(
                ErrorItem(index=index, field="labels", code=error.code, message=str(error))
            )
    if wrong:
        raise Refusal(422, wrong[0].code, "labels of the request cannot be used", items=wrong)
    return drafts


class _LabelError(Exception):
    pass


def _draft(query: str, prompt: str, label: dict[str, Any], gate: ImageGate) -> Draft:
    response = response_of(query, prompt)
    if response is None:
        return unscored("prompt_mismatch", "the query does not begin with its prompt")
    sources = label["images"]
    if not sources:
        return unscored("image_missing", "the label has no image")
    try:
        problem = Problem(
            question=label["question"],
            images=gate.check(sources),
            reference_answer=label["answer"],
        )
    except ImageSourceError:
        raise
    except ImageError as error:
        return unscored(error.code, str(error))
    return Rollout(problem=problem, response=response)


def response_of(query: str, prompt: str) -> str | None:
    """What the policy wrote: the query without its prompt and its closing special tokens.

    Args:
        query: prompt and response, special tokens included and image tokens expanded.
        prompt: the prompt, a single token for each image.

    Returns:
        The response, or None when the query does not begin with the prompt.
    """
    whole, start = _REPEATED.sub(r"\1", query), _REPEATED.sub(r"\1", prompt)
    begin = 0 if whole.startswith(start) else whole.find(start)
    if begin < 0 or not _LEADING.fullmatch(whole, 0, begin):
        return None
    return _without_endings(query[_original_position(query, begin + len(start)) :])


def _original_position(query: str, position: int) -> int:
    """Where a position stands in the query before repeated tokens were collapsed."""
    shift = 0
    for run in _REPEATED.finditer(query):
        if run.start() - shift >= position:
            break
        shift += len(run[0]) - len(run[1])
    return position + shift


def _without_endings(text: str) -> str:
    """The text without the special tokens that end it, and the whitespace around these."""
    end = kept = len(text)
    while True:
        while end > 0 and text[end - 1].isspace():
            end -= 1
        ending = next((each for each in _ENDINGS if text.endswith(each, 0, end)), None)
        if ending is None:
            return text[:kept]
        end -= len(ending)
        kept = end


def _label(value: Any) -> dict[str, Any]:
    """question, images and answer of a label, checked for their types."""
    if isinstance(value, str):
        if not value.strip():
            raise _LabelError(
                "empty: start OpenRLHF with --data.label_key and a column of objects with "
                "question and images"
            )
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _LabelError("a text that is not the JSON of an object") from None
    if not isinstance(value, dict):
        raise _LabelError("not an object with question and images")
    question = value.get("question")
    if not _is_text(question) or not question:
        raise _LabelError("question is missing, or not a text")
    images = value.get("images", value.get("image"))
    images = [images] if isinstance(images, str) else images
    if images is None:
        raise _LabelError("images is missing: name the images of the question")
    if not isinstance(images, list) or not all(_is_text(each) for each in images):
        raise _LabelError("images is not a list of texts")
    answer = value.get("answer", value.get("reference_answer"))
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not _is_text(answer):
        raise _LabelError("answer is not a text")
    return {"question": question, "images": images, "answer": answer}


def _is_text(value: Any) -> bool:
    """Whether it is a text that UTF-8 can hold, unlike half of a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def reward_answer(scores: Sequence[ProcessScore], unscored_reward: float) -> RewardResponse:
    """What OpenRLHF reads: the mean of `p_correct` for each rollout.

    Args:
        scores: one for each query.
        unscored_reward: for a rollout that our side could not score. One that is unscored by its
            own fault gets at most the lowest reward, so that being unscorable never pays.

    Returns:
        Lists as long as `scores`. In `extra_logs` an unscored rollout has mean and steps of 0, so
        the mean over scored ones is mean(vrprm_mean_p) / (1 - mean(vrprm_unscored)).
    """
    rewards = [_reward(score, unscored_reward) for score in scores]
    return RewardResponse(
        rewards=rewards,
        scores=rewards,
        extra_logs={
            "vrprm_unscored": [float(not score.scored) for score in scores],
            "vrprm_unscored_ours": [float(score.status == "unscored_ours") for score in scores],
            "vrprm_mean_p": [fmean(s.p_correct) if s.scored else 0.0 for s in scores],
            "vrprm_min_p": [min(s.p_correct) if s.scored else 0.0 for s in scores],
            "vrprm_steps": [float(len(score.p_correct)) for score in scores],
        },
    )


def _reward(score: ProcessScore, unscored_reward: float) -> float:
    if score.scored:
        return fmean(score.p_correct)
    if score.status == "unscored_response":
        return min(unscored_reward, LOWEST_REWARD)
    return unscored_reward
