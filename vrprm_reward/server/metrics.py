"""What a server counts, in a registry of its own, in Prometheus' text format."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from vrprm_reward.server.schema import safe_name
from vrprm_reward.types import ProcessScore

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MAX_REASONS = 50


class Metrics:
    """Counters of one app. All times are in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "vrprm_requests", "Requests answered.", ["route", "status"], registry=own
        )
        self.request_seconds = Histogram(
            "vrprm_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.queue_seconds = Histogram(
            "vrprm_queue_seconds",
            "From the start of waiting to the turn.",
            buckets=_SECONDS,
            registry=own,
        )
        self.scoring_seconds = Histogram(
            "vrprm_scoring_seconds",
            "One call of the reward model, its images included.",
            buckets=_SECONDS,
            registry=own,
        )
        self.batch = Histogram(
            "vrprm_batch_rollouts", "Rollouts of one request.", buckets=_SIZES, registry=own
        )
        self.held = Gauge("vrprm_queue_requests", "Requests inside.", ["route"], registry=own)
        self.held_bytes = Gauge("vrprm_held_bytes", "Bytes of bodies inside.", registry=own)
        self.lobby = Gauge(
            "vrprm_lobby_requests", "Requests outside a full queue, bodies unread.", registry=own
        )
        self.waiting = Gauge("vrprm_waiting_rollouts", "Rollouts before their turn.", registry=own)
        self.running = Gauge("vrprm_running_rollouts", "Rollouts being scored.", registry=own)
        self.joined = Counter(
            "vrprm_joined_requests", "Requests that joined an equal one in work.", registry=own
        )
        self.abandoned = Counter(
            "vrprm_abandoned_requests",
            "Requests dropped because no client waited any more.",
            registry=own,
        )
        self.rollouts = Counter("vrprm_rollouts", "Rollouts by outcome.", ["status"], registry=own)
        self.unscored = Counter("vrprm_unscored", "Rollouts unscored.", ["reason"], registry=own)
        self.steps = Counter("vrprm_steps", "Steps judged.", registry=own)
        self.tokens = Counter("vrprm_tokens", "Tokens of the model.", ["kind"], registry=own)
        self.images = Counter("vrprm_images", "Images read.", registry=own)
        self._reasons: set[str] = set()
        for status in ("scored", "unscored_ours", "unscored_response"):
            self.rollouts.labels(status)

    def count_work(self, scores: Iterable[ProcessScore]) -> None:
        """Add up what the reward model did."""
        for score in scores:
            self.steps.inc(len(score.p_correct))
            self.tokens.labels("prompt").inc(score.usage.prompt_tokens)
            self.tokens.labels("generated").inc(score.usage.generated_tokens)

    def count_outcomes(self, scores: Iterable[ProcessScore]) -> None:
        """Add up what clients were told of their rollouts."""
        for score in scores:
            self.rollouts.labels(score.status).inc()
            if score.reason is not None:
                self.unscored.labels(self._known(score.reason)).inc()

    def _known(self, reason: str) -> str:
        """The reason as a label: a plugged-in reward must not be able to make any number."""
        reason = safe_name(reason)
        if len(self._reasons) < _MAX_REASONS:
            self._reasons.add(reason)
        return reason if reason in self._reasons else "other"

    def text(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)
