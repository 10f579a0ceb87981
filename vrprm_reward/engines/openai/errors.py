"""What goes wrong between this engine and its servers."""

from vrprm_reward.errors import EngineError


class ServerError(EngineError):
    """A model server let us down; the message names it and the remedy."""

    code = "server"


class ServerUnreachableError(ServerError):
    """No server can be connected to, after all attempts."""

    code = "server_unreachable"


class ServerTimeoutError(ServerError):
    """No answer within the time that the options allow."""

    code = "server_timeout"


class ServerFailedError(ServerError):
    """Every attempt ended in HTTP 408, 429 or 5xx."""

    code = "server_failed"


class ServerAnswerError(ServerError):
    """An answer that is not what the OpenAI protocol says: no JSON, or fields are missing."""

    code = "server_answer"


class ServerRefusedError(ServerError):
    """HTTP 3xx or 4xx that no retry can change.

    Args:
        message: what was refused, with the server's own words.
        status: HTTP status.
        words: the server's own words alone.
    """

    code = "server_refused"

    def __init__(self, message: str, *, status: int, words: str) -> None:
        super().__init__(message)
        self.status = status
        self.words = words


class ServersDisagreeError(ServerError):
    """The servers of one engine serve different models."""

    code = "servers_disagree"


class TemplateRefusedError(ServerError):
    """The server's conversation template is not the profile's; the message has the command."""

    code = "template_refused"


class ConstraintIgnoredError(ServerError):
    """A judgement that is not exactly "0" or "1", although nothing else was allowed."""

    code = "constraint_ignored"


class LogprobsMissingError(ServerError):
    """A judgement without the log-probabilities of both verdicts."""

    code = "logprobs_missing"
