"""What an attack on a judge does to a rollout, and which steps it leaves comparable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.render import step_number
from vrprm_reward.types import ImageSource


@dataclass(frozen=True)
class Target:
    """A rollout under attack, and what the attacker knows of its judge."""

    texts: tuple[str, ...]
    """Its steps; at least one, none of them blank."""

    profile: Profile
    """How the judge is spoken to: the markers that are worth forging."""

    other_images: tuple[ImageSource, ...] | None = None
    """Images of another problem, where there is one."""

    def number(self, index: int) -> int:
        """The number under which the judge is shown step `index`."""
        return step_number(self.profile, index)


@dataclass(frozen=True)
class Pair:
    """Steps before and after an edit that claim the same. Claims of several hold if all do."""

    before: tuple[int, ...]
    """Indices of steps of the original."""

    after: tuple[int, ...]
    """Indices of steps of the edited rollout."""


@dataclass(frozen=True)
class Edit:
    """An edited rollout."""

    texts: tuple[str, ...]
    """Its steps."""

    pairs: tuple[Pair, ...]
    """The steps that are compared. Where the attack spoils, those that it makes wrong."""

    images: tuple[ImageSource, ...] | None = None
    """Its images; None: those of the original."""


@dataclass(frozen=True)
class Attack:
    """An edit that a policy could learn, with what is known of it."""

    edit: Callable[[Target], Edit | None]
    """Makes the edit; None where it cannot be made of this rollout. Its name is the attack's, the
    first line of its docstring says what it does."""

    kind: str
    """The family it belongs to."""

    source: str
    """Who described it."""

    spoils: bool = False
    """Whether the steps that are compared become wrong by it. Otherwise what they say stays as
    true or as false as it was."""

    empties: bool = False
    """Whether it spoils them by leaving nothing that could be right or wrong."""

    forges: bool = False
    """Whether it writes the judge's own markup, so that neutralising may make a difference."""

    @property
    def name(self) -> str:
        """Name of the attack."""
        return self.edit.__name__

    @property
    def what(self) -> str:
        """What it does, in a sentence."""
        return (self.edit.__doc__ or "").strip().splitlines()[0]


def each_step(target: Target, change: Callable[[int, str], str]) -> Edit:
    """Every step changed in its place by a function of its index and its text."""
    texts = tuple(change(index, text) for index, text in enumerate(target.texts))
    return Edit(texts, in_place(range(len(texts))))


def in_place(indices: Sequence[int]) -> tuple[Pair, ...]:
    """Pairs of steps that stay where they are."""
    return tuple(Pair((index,), (index,)) for index in indices)
