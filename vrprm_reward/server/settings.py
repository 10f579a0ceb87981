"""Settings of the HTTP reward server, each with its default: the one place where they stand."""

import ipaddress

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from vrprm_reward.images import ImageSettings

MIB = 2**20


class ServerSettings(BaseModel):
    """Limits, waiting times and secrets of one server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[SecretStr, ...] = ()
    """Bearer tokens that are let in; none: everyone is."""

    unscored_reward: float | None = Field(default=None, allow_inf_nan=False)
    """What `/get_reward` answers for a rollout that could not be scored. None: that route is off,
    because OpenRLHF has no way to leave a rollout out and the choice is the user's."""

    images: ImageSettings = ImageSettings(allow_paths=False)
    """Which images are accepted, and from where; by default only `data:` URLs."""

    max_batch: int = Field(default=256, ge=1)
    """Most rollouts in one request."""

    max_body_bytes: int = Field(default=64 * MIB, ge=1)
    """Largest body of a request, in bytes."""

    max_held_bytes: int = Field(default=2048 * MIB, ge=1)
    """Most bytes of bodies held at one time; one request is always let in."""

    queue: int = Field(default=256, ge=1)
    """Most requests to `/v1/score` inside at one time, those being scored included. Beyond it:
    503 at once."""

    reward_queue: int = Field(default=8192, ge=1)
    """Most requests to `/get_reward` inside at one time. Beyond it they wait, their bodies
    unread."""

    max_running: int = Field(default=256, ge=1)
    """Most rollouts handed to the reward model at one time; a larger single request goes alone."""

    score_seconds: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """Seconds from the arrival of a request to `/v1/score` to a 504."""

    reward_seconds: float = Field(default=170.0, gt=0, allow_inf_nan=False)
    """Seconds from the arrival of a request to `/get_reward` to the answer that its rollouts are
    unscored. OpenRLHF's client gives up at 180."""

    body_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds for a body to arrive, from when the server begins to read it, to a 408."""

    retry_after_seconds: int = Field(default=2, ge=0)
    """What a 503 names in Retry-After."""

    drain_seconds: float = Field(default=180.0, ge=0, allow_inf_nan=False)
    """Seconds after SIGTERM for what was let in to finish."""

    upstream_seconds: float = Field(default=900.0, ge=0, allow_inf_nan=False)
    """Seconds to wait at the start for model servers that do not answer yet; they may take
    minutes to load their model. `/ready` says `loading` meanwhile."""

    ready_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """How long a scored rollout counts as proof that the model answers, in seconds; after that
    `/ready` asks it to score a canary."""

    @field_validator("tokens")
    @classmethod
    def _usable_tokens(cls, tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for token in tokens:
            text = token.get_secret_value()
            if not text.isascii() or not text.isprintable() or " " in text or len(text) < 8:
                raise ValueError(
                    "a token has at least 8 printable ASCII characters and no spaces: make one "
                    "with `openssl rand -hex 24`"
                )
        return tokens


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
