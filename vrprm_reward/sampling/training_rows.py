"""What a search found, as rows to train on: conversations, preferred steps, labelled steps."""

from collections.abc import Iterator, Sequence
from typing import Any

from vrprm_reward.sampling.policy import SEPARATOR
from vrprm_reward.sampling.rejection import Found
from vrprm_reward.types import Problem


def user_turn(problem: Problem) -> dict[str, str]:
    """The question with an `<image>` for every image, in front unless the question places them."""
    question = problem.question
    missing = len(problem.images) - question.count("<image>")
    return {"role": "user", "content": "<image>" * max(0, missing) + question}


def conversations(
    problem: Problem, images: Sequence[str], found: Found
) -> Iterator[dict[str, Any]]:
    """A conversation for every finished trajectory: `messages` and `images`."""
    for trajectory in found.accepted:
        answer = {"role": "assistant", "content": trajectory.response}
        yield {"messages": [user_turn(problem), answer], "images": list(images)}


def step_pairs(problem: Problem, images: Sequence[str], found: Found) -> Iterator[dict[str, Any]]:
    """Two steps behind the same prefix, one accepted and one rejected.

    `prefix` ends with a separator unless it is empty, so that prefix + chosen is a response.
    """
    for choice in found.choices:
        if not choice.accepted:
            continue
        chosen = choice.accepted[0]
        for rejected in choice.rejected:
            yield {
                "messages": [user_turn(problem)],
                "images": list(images),
                "prefix": "".join(step + SEPARATOR for step in choice.prefix.steps),
                "chosen": chosen.text,
                "rejected": rejected.text,
                "p_chosen": chosen.p,
                "p_rejected": rejected.p,
                "value_chosen": chosen.value,
                "value_rejected": rejected.value,
            }


def labelled_steps(
    problem: Problem, images: Sequence[str], found: Found
) -> Iterator[dict[str, Any]]:
    """Responses with a score for each step, in the shape of VisualPRM400K's rows.

    One for every trajectory, and one for every rejected step: the prefix it was proposed for, and
    the step at its end. `score` is the reward model's probability; there are no Monte Carlo counts.
    """
    labelled = [(t.steps, t.p_correct) for t in found.trajectories if t.steps]
    for choice in found.choices:
        for rejected in choice.rejected:
            prefix = choice.prefix
            labelled.append(((*prefix.steps, rejected.text), (*prefix.p_correct, rejected.p)))
    for steps, p_correct in labelled:
        yield {
            "image": list(images),
            "question": user_turn(problem)["content"],
            "answer": problem.reference_answer,
            "response": SEPARATOR.join(steps),
            "steps_with_score": [
                {"step": step, "score": p} for step, p in zip(steps, p_correct, strict=True)
            ],
        }
