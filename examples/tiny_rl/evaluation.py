"""What a policy is worth: true figures on held-out problems, sampled and greedy."""

from collections.abc import Sequence
from statistics import fmean

import torch

from .habits import habit_shares
from .policy import Policy
from .problems import Task
from .sampling import LONGEST, Response, respond
from .truth import Truth, truth_of

BATCH = 128
"""Problems that are answered at once."""


def figures(truths: Sequence[Truth], responses: Sequence[Response]) -> dict[str, float]:
    """Shares and means over responses. Steps are labelled by the world, not by a reward model."""
    steps = sum(len(truth.labels) for truth in truths)
    right = [truth for truth in truths if truth.right]
    found = {
        "final": len(right) / len(truths),
        "steps": sum(sum(truth.labels) for truth in truths) / max(1, steps),
        "solved": fmean(truth.solved for truth in truths),
        "sound": sum(truth.right and truth.sound for truth in truths) / len(truths),
        "number_of_steps": steps / len(truths),
        "repeated": sum(truth.repeated for truth in truths) / max(1, steps),
        "tokens": fmean(len(response.ids) for response in responses),
        "ended": fmean(response.ended for response in responses),
    }
    if right:
        found["right_on_wrong_step"] = sum(not truth.sound for truth in right) / len(right)
        founded = sum(truth.sound and truth.complete for truth in right)
        found["right_unfounded"] = 1 - founded / len(right)
    return found


def evaluate(
    policy: Policy, tasks: Sequence[Task], seed: int, longest: int = LONGEST
) -> dict[str, float]:
    """Figures of sampled (`sampled/...`) and greedy (`greedy/...`) responses, one per problem."""
    policy.model.eval()
    prompts = [policy.prompt(task) for task in tasks]
    found: dict[str, float] = {}
    for name, generator in (
        ("sampled", torch.Generator().manual_seed(seed)),
        ("greedy", None),
    ):
        responses: list[Response] = []
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            responses += respond(policy, batch, group=1, generator=generator, longest=longest)
        truths = [truth_of(task, r.text) for task, r in zip(tasks, responses, strict=True)]
        found |= {f"{name}/{key}": value for key, value in figures(truths, responses).items()}
        shares = habit_shares(tasks, responses)
        found |= {f"{name}/{key}": value for key, value in shares.items()}
    return found
