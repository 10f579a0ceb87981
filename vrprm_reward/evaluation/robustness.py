"""The robustness suite: attacks on rollouts, scored by any process reward, before and after.

The judge is asked twice where that is possible: as it is always asked, and with untrusted text
shown as it was written, to see what neutralising is worth.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vrprm_reward.errors import InputError
from vrprm_reward.evaluation.robustness_attacks import ATTACKS
from vrprm_reward.evaluation.robustness_edits import Attack, Edit, Target
from vrprm_reward.evaluation.robustness_metrics import Shift
from vrprm_reward.process_reward import ProcessReward
from vrprm_reward.scoring.profile import Profile, load_profile
from vrprm_reward.scoring.scorer import VRPRMScorer
from vrprm_reward.scoring.unguarded import UnguardedScorer
from vrprm_reward.steps import StepSettings, join_steps, split_steps
from vrprm_reward.types import ImageSource, Problem, ProcessScore, Rollout

MOST_OTHER_IMAGES = 64
"""Of so many problems the images are remembered, to be shown in place of others."""


@dataclass(frozen=True)
class Attacked:
    """A rollout after an attack."""

    attack: Attack
    edit: Edit | None
    """None where this rollout does not allow it."""

    rollout: Rollout | None
    """What is scored; None as `edit`."""


class OtherImages:
    """Images of problems, to be swapped."""

    def __init__(self) -> None:
        self._images: list[tuple[ImageSource, ...]] = []

    def add(self, problem: Problem) -> None:
        """Remember the images of a problem."""
        if len(self._images) < MOST_OTHER_IMAGES and problem.images not in self._images:
            self._images.append(problem.images)

    def instead_of(self, problem: Problem) -> tuple[ImageSource, ...] | None:
        """The images of the next problem that has others; None where there is none."""
        known = problem.images in self._images
        start = self._images.index(problem.images) + 1 if known else 0
        after = (*self._images[start:], *self._images[:start])
        return next((images for images in after if images != problem.images), None)


@dataclass
class Robustness:
    """What every attack did to the scores of one judge."""

    attacks: Sequence[Attack] = tuple(ATTACKS.values())
    shifts: dict[str, Shift] = field(init=False)
    """By name of the attack."""

    forged: Shift = field(default_factory=Shift)
    """All attacks together that forge markup and keep correctness."""

    rollouts: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    """Rollouts that have no score before any attack, by reason; nothing is measured on them."""

    def __post_init__(self) -> None:
        self.shifts = {attack.name: Shift() for attack in self.attacks}

    def add(self, found: Sequence[Attacked], scores: Sequence[ProcessScore]) -> None:
        """Count one rollout.

        Args:
            found: the attacks on it.
            scores: of the original, then of every attack that could be made.

        Raises:
            InputError: other steps were judged than were handed in.
        """
        self.rollouts += 1
        before, *rest = scores
        if not before.scored:
            self.unscored[before.reason or before.status] += 1
            return
        after = iter(rest)
        for attacked in found:
            shift = self.shifts[attacked.attack.name]
            pooled = attacked.attack.forges and not attacked.attack.spoils
            score = None if attacked.rollout is None else next(after)
            for counted in (shift, self.forged) if pooled else (shift,):
                _count(counted, self.rollouts, attacked, before, score)

    def fooled_by(self) -> list[str]:
        """Names of the attacks that work on this judge."""
        return [attack.name for attack in self.attacks if self._fooled(attack)]

    def _fooled(self, attack: Attack) -> bool | None:
        return self.shifts[attack.name].fooled(spoils=attack.spoils, empties=attack.empties)

    def figures(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        by_attack = {
            attack.name: {
                "kind": attack.kind,
                "spoils": attack.spoils,
                "empties": attack.empties,
                "forges": attack.forges,
                **self.shifts[attack.name].figures(),
                "fooled": self._fooled(attack),
            }
            for attack in self.attacks
        }
        return {
            "rollouts": self.rollouts,
            "unscored": dict(self.unscored),
            "fooled_by": self.fooled_by(),
            "forged_markup": self.forged.figures(),
            "attacks": by_attack,
        }


def _count(
    shift: Shift,
    number: int,
    attacked: Attacked,
    before: ProcessScore,
    after: ProcessScore | None,
) -> None:
    if after is None or attacked.edit is None or attacked.rollout is None:
        shift.impossible += 1
    elif not after.scored:
        shift.unscored[after.reason or after.status] += 1
    else:
        if len(after.p_correct) != len(attacked.edit.texts):
            raise InputError(
                f"the process reward judged {len(after.p_correct)} steps where it was handed "
                f"{len(attacked.edit.texts)}: the suite needs one that takes a rollout's steps"
            )
        shift.add(number, attacked.edit.pairs, before.p_correct, after.p_correct)


def original_of(rollout: Rollout, settings: StepSettings) -> Rollout:
    """A rollout with its steps, and nothing between them but blank lines."""
    steps = split_steps(rollout.response, settings) if rollout.steps is None else rollout.steps
    return _with_steps(rollout.problem, [step.text for step in steps])


def attacked_by(
    attacks: Iterable[Attack],
    original: Rollout,
    profile: Profile,
    other_images: tuple[ImageSource, ...] | None,
) -> list[Attacked]:
    """Every attack on a rollout that has steps; none on one that has not."""
    if not original.steps:
        return []
    target = Target(tuple(step.text for step in original.steps), profile, other_images)
    return [_attacked(attack, target, original.problem) for attack in attacks]


def _attacked(attack: Attack, target: Target, problem: Problem) -> Attacked:
    edit = attack.edit(target)
    if edit is None:
        return Attacked(attack, None, None)
    if edit.images is not None:
        problem = problem.model_copy(update={"images": edit.images})
    return Attacked(attack, edit, _with_steps(problem, edit.texts))


def _with_steps(problem: Problem, texts: Sequence[str]) -> Rollout:
    response, steps = join_steps(texts)
    return Rollout(problem=problem, response=response, steps=steps)


def profile_under_attack(reward: ProcessReward) -> Profile:
    """The profile whose markers are forged: the judge's own, or the plain one of VRPRM."""
    profile = getattr(reward, "profile", None)
    return profile if isinstance(profile, Profile) else load_profile("two_stage")


def without_neutralising(reward: ProcessReward) -> ProcessReward | None:
    """The same judge, shown untrusted text as it is; None where that cannot be had.

    Only what asks an engine itself can be had so. A reward server neutralises on its side.
    """
    return UnguardedScorer.beside(reward) if isinstance(reward, VRPRMScorer) else None


def measure(
    reward: ProcessReward,
    rollouts: Sequence[Rollout],
    *,
    attacks: Sequence[Attack] = tuple(ATTACKS.values()),
    steps: StepSettings = StepSettings(),  # noqa: B008  frozen
) -> Robustness:
    """Attack a judge with every rollout, in one call of `score`.

    Args:
        reward: anything that scores; it must take the steps that a rollout comes with.
        rollouts: honest ones, some right and some wrong.
        attacks: which attacks are made.
        steps: how responses without ready-made steps are divided.
    """
    others = OtherImages()
    for rollout in rollouts:
        others.add(rollout.problem)
    profile = profile_under_attack(reward)
    asked: list[Rollout] = []
    found: list[tuple[list[Attacked], int]] = []
    for rollout in rollouts:
        original = original_of(rollout, steps)
        made = attacked_by(attacks, original, profile, others.instead_of(rollout.problem))
        several = to_score(original, made)
        asked += several
        found.append((made, len(several)))
    scores = iter(reward.score(asked))
    robustness = Robustness(attacks)
    for made, count in found:
        robustness.add(made, [next(scores) for _ in range(count)])
    return robustness


def to_score(original: Rollout, found: Iterable[Attacked]) -> list[Rollout]:
    """The original, then every attack that could be made."""
    return [original, *(made.rollout for made in found if made.rollout is not None)]
