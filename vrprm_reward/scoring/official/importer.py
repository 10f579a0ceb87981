"""From a checkout to profile files: what was found, what is missing, what can be written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vrprm_reward.errors import ProfileError
from vrprm_reward.scoring.official.find import Findings, Place, find_constants
from vrprm_reward.scoring.official.recipes import RECIPES, Recipe, with_derived
from vrprm_reward.scoring.official.registry import REGISTRY, Constant
from vrprm_reward.scoring.profile import Profile
from vrprm_reward.scoring.toml_text import profile_toml


@dataclass(frozen=True)
class Written:
    """A profile that can be written."""

    profile: Profile
    text: str
    """The content of its TOML file."""

    @property
    def file_name(self) -> str:
        """Name of its file."""
        return f"{self.profile.name}.toml"


@dataclass(frozen=True)
class ImportReport:
    """What an import came to. Its order depends on the registry and the recipes only."""

    findings: Findings
    found: tuple[Constant, ...]
    missing: tuple[Constant, ...]
    profiles: tuple[Written, ...]
    left_out: dict[str, str]
    """Name of a profile that cannot be written -> why."""

    blocking: frozenset[str]
    """Names of the missing constants that profiles were left out for."""


def import_profiles(
    root: Path,
    registry: Sequence[Constant] = REGISTRY,
    recipes: Sequence[Recipe] = RECIPES,
) -> ImportReport:
    """Search a checkout and make every profile whose texts it has. Writes nothing.

    Raises:
        InputError: there is no such folder, or it has too many files.
    """
    findings = find_constants(root, registry)
    constants = {constant.name: constant for constant in registry}
    texts, broken = findings.texts, ""
    try:
        texts = with_derived(texts)
    except ProfileError as error:
        broken = str(error)
    profiles, left_out, blocking = [], {}, set()
    for recipe in recipes:
        lacking = [constants[name] for name in recipe.needs if name not in texts]
        if lacking:
            blocking |= {constant.name for constant in lacking}
            why = "; ".join(f"{c.name} ({c.chars} characters) is missing" for c in lacking)
            left_out[recipe.name] = f"{why}; {broken}" if broken else why
            continue
        try:
            profile = recipe.profile(texts)
        except ProfileError as error:
            left_out[recipe.name] = str(error)
            continue
        comments = _comments(recipe, findings, constants)
        profiles.append(Written(profile, profile_toml(profile, comments)))
    return ImportReport(
        findings,
        tuple(constant for constant in registry if constant.name in findings.texts),
        tuple(constant for constant in registry if constant.name not in findings.texts),
        tuple(profiles),
        left_out,
        frozenset(blocking),
    )


def _comments(recipe: Recipe, findings: Findings, constants: dict[str, Constant]) -> list[str]:
    lines = ["Written by `vrprm-reward profile import`. Its wording belongs to the VRPRM project:"]
    for name in recipe.needs:
        name = name if name in findings.places else "step_turn"
        constant, place = constants[name], findings.places[name][0]
        lines.append(f"{name} ({constant.chars} characters, {constant.sha256}): {_one_line(place)}")
    return lines


def _one_line(place: Place) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in str(place))
