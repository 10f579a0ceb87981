"""The settings of a run: `reward.vrprm` and `algorithm.vrprm` of verl's configuration.

Nothing here imports verl.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vrprm_reward.errors import InputError
from vrprm_reward.images import ImageSettings
from vrprm_reward.rewards.combine import RewardRule
from vrprm_reward.steps import StepSettings

S = TypeVar("S", bound=BaseModel)

CUSTOM_FUNCTION = "custom_reward_function"
"""The outcome that verl's own `reward.custom_reward_function` decides."""


class RewardSettings(RewardRule):
    """`reward.vrprm`: who scores, what is judged, and what a rollout earns by it."""

    url: str | None = None
    """`http://host:port` of a `vrprm-reward serve`, or `openai+http://host:port/v1` of vLLM or
    SGLang servers. None: verl's own reward-model servers."""

    profile: str = "two_stage"
    """How the checkpoint behind an OpenAI-compatible server is spoken to: a name, or the path of
    an imported profile. A `vrprm-reward serve` has its own."""

    model: str = "auto"
    """Served model id of OpenAI-compatible servers."""

    check_template: bool = True
    """Whether OpenAI-compatible servers must have the profile's conversation template."""

    timeout: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Seconds for one rollout with all attempts, from when it has its place; then it is masked."""

    max_concurrency: int = Field(default=64, ge=1)
    """Most rollouts at a time in one reward worker; the others wait."""

    steps: StepSettings = StepSettings()
    """How the policy's text is divided; `steps.part` chooses the whole response, its thinking or
    its answer. Text from tools is context for the judge and never a step."""

    images: ImageSettings = ImageSettings()
    """Which images are accepted."""

    question_key: str | None = None
    """Where in `extra_info` the question stands; None: the text of the prompt's user messages."""

    outcome: str = "math"
    """`math`, `exact`, `none`, `module:function` (response, reference answer -> [0, 1]), or
    `custom_reward_function`: verl's own function decides, right from one half on."""

    outcome_timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds for one outcome."""

    outcome_workers: int = Field(default=1, ge=1)
    """Processes that check outcomes, for each reward worker."""

    validation: Literal["outcome", "full"] = "outcome"
    """Whether validation rows are rewarded by their outcome alone, without asking the judge. Where
    the combination is `process`, those whose outcome is not known are scored like training rows."""

    validation_splits: tuple[str, ...] = ("test", "val", "validation")
    """Rows whose `extra_info.split` is one of these are validation rows: verl does not tell."""

    @model_validator(mode="after")
    def _outcome_is_known_if_needed(self) -> Self:
        if self.outcome == "none" and self.needs_outcome:
            raise ValueError(
                f"outcome is 'none', and the combination {self.combination!r} needs an outcome: "
                "set combination=process, or another outcome"
            )
        return self

    @model_validator(mode="after")
    def _url_is_that_of_a_server(self) -> Self:
        schemes = ("http://", "https://", "openai+http://", "openai+https://")
        if self.url is not None and not self.url.startswith(schemes):
            raise ValueError(
                f"url is {self.url!r}; a training process loads no reward model: start "
                "`vrprm-reward serve` or vLLM and write http://host:port or "
                "openai+http://host:port/v1"
            )
        return self


class AlgorithmSettings(BaseModel):
    """`algorithm.vrprm`: what the advantage estimators of this package do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_masked_share: float = Field(default=0.2, ge=0, le=1)
    """Largest share of a batch's rollouts that may be without a score; beyond it, the run stops."""


def reward_settings(config: Mapping[str, Any] | None) -> RewardSettings:
    """The settings below `reward.vrprm`. Raises `InputError` that names the key."""
    return _checked(RewardSettings, config, "reward.vrprm")


def algorithm_settings(config: Mapping[str, Any] | None) -> AlgorithmSettings:
    """The settings below `algorithm.vrprm`. Raises `InputError` that names the key."""
    return _checked(AlgorithmSettings, config, "algorithm.vrprm")


def _checked(kind: type[S], config: Mapping[str, Any] | None, place: str) -> S:
    try:
        return kind.model_validate(_plain(config or {}))
    except ValidationError as error:
        lines = [f"{'.'.join([place, *map(str, e['loc'])])}: {e['msg']}" for e in error.errors()]
        raise InputError("; ".join(lines)) from error


def _plain(value: Any) -> Any:
    """OmegaConf's containers as Python's own."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value
