"""Reward rules on a policy that is a table of numbers: many seeds in a minute, on one core.

A problem has six parts: three counts, two sums that build on them, and an answer. At each the
policy does the part, writes something true that nobody needs (a pad), or leaves it out; a part that
is done is right with the probability of its skill. A step is right when it is and what it builds on
is. An answer that rests on something wrong is right by luck at times. The reward model errs now and
then. What is earned and learnt is computed by `vrprm_reward.rewards`.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import NamedTuple

import torch

from vrprm_reward.rewards.advantage import ESTIMATORS
from vrprm_reward.rewards.combine import RewardRule, advantage_for, step_rewards
from vrprm_reward.rewards.outcome import Outcome

BUILDS_ON = ((), (), (0, 1), (), (2, 3), (4,))
"""For each part of a problem, those that it builds on."""

PARTS = len(BUILDS_ON)
_COUNTS, _SUMS, _ANSWER = range(24), range(24, 30), range(30, 31)
SKILLS_OF = (_COUNTS, _COUNTS, _SUMS, _COUNTS, _SUMS, _ANSWER)
"""For each part the skills that it may ask for."""

SKILLS, CHOICES = 31, 8
"""Skills, and ways to carry one out, of which the first is right."""

LONGEST = 14
"""Steps of a response at most; one that is longer has no answer."""

DO, PAD, LEAVE_OUT = range(3)
"""Before a part. At the end, to do stands for to end."""

LAST = 160
"""Responses that figures are of."""

RULES = {
    "sound (default)": RewardRule(),
    "outcome": RewardRule(combination="outcome"),
    "ps_grpo": RewardRule(combination="ps_grpo"),
    "ps_grpo, gamma 1": RewardRule(combination="ps_grpo", ps_gamma=1),
    "gated, running_min": RewardRule(combination="gated"),
    "gated, own": RewardRule(combination="gated", credit="own"),
    "gated, own, no outcome": RewardRule(combination="gated", credit="own", outcome_weight=0),
    "sum, own": RewardRule(combination="sum", credit="own"),
    "sum, running_min": RewardRule(combination="sum"),
    "process, own": RewardRule(combination="process", credit="own"),
}
"""The rules that are tried, each with the advantage rule that it is made for."""


@dataclass(frozen=True)
class Toy:
    """A policy at its start, a reward model, and a training."""

    able: float = 0.6
    """About the probability that a part is done right at the start."""

    habits: tuple[float, float] = (0.2, 0.15)
    """Probabilities of a pad and of leaving out, before each part, at the start."""

    luck: float = 0.15
    """Probability that an answer on something wrong is right."""

    errors: float = 0.02
    """Share of the steps that the reward model judges wrongly."""

    sure: tuple[float, float] = (3.5, 0.7)
    """Mean and deviation of the size of its log-odds."""

    updates: int = 60
    problems: int = 4
    group: int = 8
    rate: float = 0.1


class Choice(NamedTuple):
    """One choice of the policy."""

    table: int
    """0: what to do; 1: how to carry out a skill."""

    row: int
    chosen: int


@dataclass
class Response:
    """What one response was like, and the choices that it was made of."""

    p_correct: list[float] = field(default_factory=list)
    choices: list[list[Choice]] = field(default_factory=list)
    """Per step, and last those of the end, if it ended by itself."""

    pads: int = 0
    left_out: int = 0
    sound: bool = False
    right: bool = False


class Policy:
    """Logits of what to do before each part and at the end, and of skills: (rows, choices)."""

    def __init__(self, toy: Toy, seed: int) -> None:
        self._toy, self.random = toy, random.Random(seed)
        able = math.log(toy.able / (1 - toy.able) * (CHOICES - 1))
        skills = torch.tensor(
            [[self.random.gauss(0, 0.5) for _ in range(CHOICES)] for _ in range(SKILLS)]
        )
        skills[:, 0] += able
        pad, leave_out = toy.habits
        doing = torch.tensor([1 - pad - leave_out, pad, leave_out]).clamp_min(1e-9).log()
        doing = doing.repeat(PARTS + 1, 1)
        doing[PARTS, LEAVE_OUT] = -1e9  # at the end there is nothing to leave out
        self.tables = [doing, skills]
        self._probabilities: list[list[list[float]]] = []

    def probabilities(self) -> list[torch.Tensor]:
        """Those of the choices, as the logits are now."""
        found = [table.softmax(-1) for table in self.tables]
        self._probabilities = [table.tolist() for table in found]
        return found

    def answer(self, asked: Sequence[int]) -> Response:
        """A response to a problem that asks for these skills, one for each part."""
        found, right, part = Response(), [False] * PARTS, 0
        made: list[Choice] = []
        for _ in range(LONGEST):
            what = self._choose(0, part, made)
            while what == LEAVE_OUT:
                found.left_out += 1
                part += 1
                what = self._choose(0, part, made)
            if what == DO and part == PARTS:
                found.choices.append(made)
                break
            true = True
            if what == PAD:
                found.pads += 1
            else:
                way = self._choose(1, asked[part], made)
                right[part] = true = way == 0 and all(right[i] for i in BUILDS_ON[part])
                part += 1
            found.p_correct.append(self._judged(true))
            found.choices.append(made)
            made = []
        found.sound = right[-1]
        stated = 0 < len(found.p_correct) < len(found.choices)
        found.right = stated and (found.sound or self.random.random() < self._toy.luck)
        return found

    def _choose(self, table: int, row: int, made: list[Choice]) -> int:
        weights = self._probabilities[table][row]
        (chosen,) = self.random.choices(range(len(weights)), weights)
        made.append(Choice(table, row, chosen))
        return chosen

    def _judged(self, true: bool) -> float:
        mean, deviation = self._toy.sure
        said = true != (self.random.random() < self._toy.errors)
        return 1 / (1 + math.exp(-self.random.gauss(mean if said else -mean, deviation)))


def train(toy: Toy, rule: RewardRule, seed: int) -> dict[str, float]:
    """Train a policy, and say what its last `LAST` responses were like."""
    policy = Policy(toy, seed)
    optimizer = torch.optim.Adam(policy.tables, lr=toy.rate, betas=(0.9, 0.98))
    responses: list[Response] = []
    for number in range(toy.updates):
        for each in optimizer.param_groups:
            each["lr"] = toy.rate * min((number + 1) / 10, 1 - 0.99 * number / toy.updates)
        probabilities = policy.probabilities()
        slopes = [torch.zeros_like(table) for table in policy.tables]
        for _ in range(toy.problems):
            asked = [policy.random.choice(skills) for skills in SKILLS_OF]
            group = [policy.answer(asked) for _ in range(toy.group)]
            learn(group, rule, probabilities, slopes)
            responses += group
        # The size of a gradient says nothing: rules differ in the size of what they pay.
        size = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        for table, slope in zip(policy.tables, slopes, strict=True):
            table.grad = -slope / max(size, 1e-9)
        optimizer.step()
    last = responses[-LAST:]
    return {
        "right": fmean(r.right for r in last),
        "sound": fmean(r.sound for r in last),
        "steps": fmean(len(r.p_correct) for r in last),
        "pads": fmean(r.pads for r in last),
        "left out": fmean(r.left_out for r in last),
    }


def learn(
    group: Sequence[Response],
    rule: RewardRule,
    probabilities: Sequence[torch.Tensor],
    slopes: Sequence[torch.Tensor],
) -> None:
    """Add the slopes of the advantages times the log-probabilities, of steps and ends.

    Args:
        group: responses to one problem.
        rule: by which they are rewarded.
        probabilities: of the choices, as `Policy.probabilities` gave them.
        slopes: as large; what is found is added to them.
    """
    written = [response for response in group if response.p_correct]
    if not written:
        return
    earned = [step_rewards(r.p_correct, Outcome(float(r.right)), rule) for r in written]
    advantages = ESTIMATORS[advantage_for(rule)](
        [torch.tensor(steps) for steps, _ in earned], [0] * len(written), [end for _, end in earned]
    )
    for response, advantage in zip(written, advantages, strict=True):
        assert advantage is not None
        for made, value in zip(response.choices, advantage.tolist(), strict=False):
            for table, row, chosen in made:
                slopes[table][row] -= value * probabilities[table][row]
                slopes[table][row, chosen] += value


def compared(toy: Toy, rules: dict[str, RewardRule], seeds: int) -> list[dict[str, str]]:
    """For each rule mean and spread over at least two seeds of what the policies came to."""
    rows = []
    for name, rule in rules.items():
        runs = [train(toy, rule, seed) for seed in range(seeds)]
        row = {"rule": name}
        for figure in runs[0]:
            values = [run[figure] for run in runs]
            row[figure] = f"{fmean(values):.2f} ± {stdev(values):.2f}"
        rows.append(row)
    return rows
