"""What to watch in a training: numbers over a batch of rollout rewards."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from vrprm_reward.rewards.aggregate import first_error
from vrprm_reward.rewards.combine import RolloutReward

FIRST_ERRORS = 4
"""Positions of a first error that have a number of their own; later ones share one."""


def batch_metrics(
    rollouts: Sequence[RolloutReward], seconds: Sequence[float] = (), prefix: str = "vrprm"
) -> dict[str, float]:
    """Numbers for a logger, keyed `prefix/...`. Empty for no rollouts.

    Shares are of all rollouts: `reason/...` of those without a score, masked or unscorable, by why;
    `outcome_reason/...` of the scored ones whose outcome has a reason, as when it is off or its
    check timed out. Means of probabilities, steps and rewards are over those that have them, and
    are left out where none has. A first error is the first step below one half.

    Args:
        rollouts: the rewards of one training batch.
        seconds: how long scoring took, for each rollout whose time is known.
        prefix: first part of the keys.
    """
    if not rollouts:
        return {}
    count = len(rollouts)
    found = {
        "masked_share": sum(r.masked for r in rollouts) / count,
        "unscorable_share": sum(r.status == "unscored_response" for r in rollouts) / count,
    }
    reasons = Counter(
        f"{'outcome_reason' if r.status == 'scored' else 'reason'}/{r.reason}"
        for r in rollouts
        if r.reason
    )
    found |= {name: times / count for name, times in sorted(reasons.items())}
    scored = [r for r in rollouts if r.status == "scored" and r.p_correct]
    if scored:
        found["p_correct/mean"] = fmean(fmean(r.p_correct) for r in scored)
        found["p_correct/min"] = fmean(min(r.p_correct) for r in scored)
        lengths = [len(r.p_correct) for r in scored]
        found |= {"steps/mean": fmean(lengths), "steps/max": max(lengths)}
        found |= _first_errors(scored)
    rewarded = [r for r in rollouts if not r.masked]
    if rewarded:
        found["reward/mean"] = fmean(r.total for r in rewarded)
    known = [(r.total, r.outcome) for r in rewarded if r.outcome is not None]
    if known:
        found["outcome/mean"] = fmean(outcome for _, outcome in known)
        for name, right in [("right", True), ("wrong", False)]:
            rewards = [reward for reward, outcome in known if (outcome >= 0.5) is right]
            if rewards:
                found[f"reward/{name}_outcome"] = fmean(rewards)
            believed = [
                fmean(r.p_correct)
                for r in scored
                if r.outcome is not None and (r.outcome >= 0.5) is right
            ]
            if believed:
                found[f"p_correct/{name}_outcome"] = fmean(believed)
    if seconds:
        found |= {"scoring_s/mean": fmean(seconds), "scoring_s/max": max(seconds)}
    return {f"{prefix}/{name}": float(value) for name, value in found.items()}


def _first_errors(scored: Sequence[RolloutReward]) -> dict[str, float]:
    places = Counter(first_error(r.p_correct) for r in scored)
    count = len(scored)
    named = {f"first_error/step_{k + 1}": places[k] / count for k in range(FIRST_ERRORS)}
    later = sum(n for place, n in places.items() if place is not None and place >= FIRST_ERRORS)
    return named | {"first_error/later": later / count, "first_error/none": places[None] / count}
