"""docs/profiles.md names every key of a profile and every profile an import writes."""

from pathlib import Path

from pydantic import BaseModel

from vrprm_reward.images import PixelLimits
from vrprm_reward.scoring.official.recipes import RECIPES
from vrprm_reward.scoring.profile import Judging, Opening, Profile, Sections, Steps, Thinking

TEXT = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")


def test_every_key_is_documented():
    tables: list[type[BaseModel]] = [
        Profile, PixelLimits, Sections, Opening, Steps, Thinking, Judging,
    ]  # fmt: skip
    keys = {key for table in tables for key in table.model_fields}
    assert {key for key in keys if f"`{key}`" not in TEXT and f"`[{key}]`" not in TEXT} == set()


def test_every_imported_profile_is_documented():
    names = [recipe.name for recipe in RECIPES]
    assert [n for n in names if f"`{n}`" not in TEXT and not n.endswith("-v2")] == []
