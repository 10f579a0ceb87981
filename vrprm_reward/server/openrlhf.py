"""OpenRLHF's remote reward model: its requests -> rollouts, scores -> its answers.

Its client sends no images and no response: the response is what is left of `query` when the
prompt is taken off, and question, images and answer stand in the label. A rollout whose own data
are bad is unscored; a label of the wrong kind is a mistake in the run's settings, and refused.
"""

from collections.abc import Sequence
from statistics import fmean

from vrprm_reward.errors import ImageError, ImageSourceError, LabelError
from vrprm_reward.images import ImageSettings
from vrprm_reward.openrlhf_wire import Label, read_label, response_of
from vrprm_reward.server.drafts import Draft, ImageGate, unscored
from vrprm_reward.server.schema import ErrorItem, Refusal, RewardRequest, RewardResponse
from vrprm_reward.types import Problem, ProcessScore, Rollout

LOWEST_REWARD = 0.0
"""The least that a scored rollout can get; the mean of probabilities."""


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
            drafts.append(_draft(query, prompt, read_label(label), gate))
        except LabelError as error:
            wrong.append(ErrorItem(index=index, field="labels", code="label", message=str(error)))
        except ImageSourceError as error:
            wrong.append(
                ErrorItem(index=index, field="labels", code=error.code, message=str(error))
            )
    if wrong:
        raise Refusal(422, wrong[0].code, "labels of the request cannot be used", items=wrong)
    return drafts


def _draft(query: str, prompt: str, label: Label, gate: ImageGate) -> Draft:
    if label.images is None:
        raise LabelError("images is missing: name the images of the question")
    response = response_of(query, prompt)
    if response is None:
        return unscored("prompt_mismatch", "the query does not begin with its prompt")
    if not label.images:
        return unscored("image_missing", "the label has no image")
    try:
        problem = Problem(
            question=label.question,
            images=gate.check(list(label.images)),
            reference_answer=label.answer,
        )
    except ImageSourceError:
        raise
    except ImageError as error:
        return unscored(error.code, str(error))
    return Rollout(problem=problem, response=response)


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
