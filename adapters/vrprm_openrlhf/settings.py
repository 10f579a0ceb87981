"""Settings of the adapter, read from the environment: OpenRLHF makes executors without arguments.

Every field is a variable `VRPRM_OPENRLHF_<FIELD>`, those of `RewardRule` included.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vrprm_reward.errors import InputError
from vrprm_reward.rewards.aggregate import Aggregation
from vrprm_reward.rewards.combine import (
    DEFAULT_ADVANTAGE,
    RewardRule,
    advantage_for,
    check_fit,
)

PREFIX = "VRPRM_OPENRLHF_"

Advantage = Literal[
    "sound_prefix", "same_step", "leave_one_out", "process_grpo", "group_mean", "none"
]


class TrainerSettings(BaseModel):
    """What the hook in the trainer reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    advantage: Advantage = DEFAULT_ADVANTAGE
    """How step rewards become step advantages (`vrprm_reward.rewards.advantage`), where nothing is
    set by the rule that the combination and the credit are made for; `none`: they reach OpenRLHF's
    estimator as they are."""

    max_masked_share: float = Field(default=0.5, ge=0, le=1)
    """The largest share of rollouts that may be unscored by our fault before the run stops: of a
    batch in the trainer, of the last 64 in a rollout worker."""

    @model_validator(mode="before")
    @classmethod
    def _advantage_that_fits(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "advantage" in values:
            return values
        flat = {name: values[name] for name in values.keys() & RewardRule.model_fields.keys()}
        try:
            rule = RewardRule.model_validate(values.get("rule", flat))
        except ValidationError:
            return values  # what is wrong is said at the rule itself
        return values | {"advantage": advantage_for(rule)}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of this process.

        Raises:
            InputError: a value cannot be used; or (for `Settings`) a variable is unknown.
        """
        variables = os.environ if environment is None else environment
        values = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in variables.items()
            if name.startswith(PREFIX)
        }
        known = {*Settings.model_fields, *RewardRule.model_fields}
        if unknown := sorted(values.keys() - known):
            names = ", ".join(PREFIX + name.upper() for name in unknown)
            raise InputError(
                f"unknown settings {names}; there are "
                + ", ".join(PREFIX + name.upper() for name in sorted(known - {"rule"}))
            )
        try:
            return cls.model_validate(cls._with_rule(values))
        except ValidationError as error:
            # What is wrong between settings is at no place of its own.
            raise InputError(
                "; ".join(
                    f"{PREFIX}{str(each['loc'][-1]).upper()}: {each['msg']}"
                    if each["loc"]
                    else each["msg"]
                    for each in error.errors(include_url=False)
                )
            ) from None

    @classmethod
    def _with_rule(cls, values: dict[str, str]) -> dict[str, Any]:
        return dict(values)


class Settings(TrainerSettings):
    """What the executor and the reward function read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """The `vrprm-reward serve` to ask, such as `http://reward:8000`."""

    token_file: Path | None = None
    """File whose first line is the server's token; None: the variable VRPRM_TOKEN, if it is set."""

    mode: Literal["scalar", "dense"] = "scalar"
    """`dense`: rewards per step, which need the hook."""

    rule: RewardRule = RewardRule()
    """How process scores and the outcome are combined."""

    aggregation: Aggregation = "min"
    """How a scalar run makes one number of the steps' probabilities."""

    outcome: str = "math"
    """How the final answer is checked: `math`, `exact`, `none` or `module:function`."""

    outcome_seconds: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Longest time of one such check."""

    unscored_reward: float | None = Field(default=None, allow_inf_nan=False)
    """Without the hook: the reward of a rollout that our side could not score. None: the run stops
    at the first one. With the hook such rollouts are masked."""

    timeout: float = Field(default=330.0, gt=0, allow_inf_nan=False)
    """Seconds for one attempt at the server."""

    total_timeout: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    """Seconds for one rollout with all attempts."""

    max_concurrency: int = Field(default=64, ge=1)
    """Most requests in flight from one rollout worker."""

    url_hosts: tuple[str, ...] = ()
    """Hosts that images may be fetched from; separated by commas in the environment."""

    @field_validator("url_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _outcome_is_known_if_needed(self) -> Self:
        if self.outcome == "none" and self.rule.needs_outcome:
            raise ValueError(
                f"outcome is 'none', and the combination {self.rule.combination!r} needs an "
                f"outcome: set {PREFIX}COMBINATION=process, or another outcome"
            )
        return self

    @model_validator(mode="after")
    def _credit_fits_the_advantage(self) -> Self:
        if self.mode == "dense":
            try:
                check_fit(self.rule, self.advantage)
            except InputError as error:
                raise ValueError(str(error)) from None
        return self

    @classmethod
    def _with_rule(cls, values: dict[str, str]) -> dict[str, Any]:
        rule = {name: value for name, value in values.items() if name in RewardRule.model_fields}
        rest: dict[str, Any] = {name: values[name] for name in values.keys() - rule.keys()}
        if "url" not in rest:
            raise InputError(
                f"{PREFIX}URL is not set: name the reward server, such as http://reward:8000, "
                "where the job is launched (docs/openrlhf.md says how it reaches the workers)"
            )
        return {**rest, "rule": rule}

    @property
    def token(self) -> str | None:
        """The server's token. Raises `InputError` when the file cannot be read."""
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{PREFIX}TOKEN_FILE cannot be read: {error}") from None
