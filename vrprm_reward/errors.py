"""Every exception this package raises on purpose, in one tree.

    VRPRMError
    ├── InputError (ValueError)          what was handed in cannot be used; nothing was computed
    │   ├── StepError                    steps that do not fit the response
    │   ├── ImageError                   an image that cannot be turned into pixels
    │   │   ├── MissingImageError        no such file, or no image at all
    │   │   ├── ImageFormatError         bytes that are not an image of an allowed format
    │   │   ├── ImageLimitError          over the limit on bytes, pixels, aspect ratio or count
    │   │   └── ImageSourceError         a kind of source that is switched off (URLs by default)
    │   ├── ProfileError                 a profile file that is not usable
    │   ├── AlignmentError               tokens that do not spell the text they are said to spell
    │   ├── CheckpointError              a folder or name that is not a usable vision checkpoint
    │   ├── LabelError                   a label column that does not carry a problem
    │   ├── RowError                     a row of an input file, with its line and field
    │   └── client_call.ServerRefusedError   a reward server refuses the request itself
    ├── ResponseError                    the response itself cannot be judged (its own fault)
    ├── EngineError                      the engine failed (our fault)
    │   ├── PromptTooLongError           a prompt longer than the model's context
    │   ├── ProblemTooLongError          a problem to which no response fits the context
    │   ├── AnalysisError                generated analysis lines do not match the steps
    │   ├── NonFiniteLogitsError         the model answered NaN or infinity
    │   ├── engines.openai.errors.ServerError   a model server failed; nine kinds stand there
    │   └── EngineClosedError            the engine was closed while work was pending
    └── MissingExtraError (ImportError)  an optional dependency is not installed

Every class has a `code`: a stable short name that `ProcessScore.reason` and metrics carry.
"""

from typing import ClassVar


class VRPRMError(Exception):
    """Base of every exception raised on purpose by this package."""

    code: ClassVar[str] = "error"


class InputError(VRPRMError, ValueError):
    """Something handed in cannot be used. The message names the value and the remedy."""

    code = "input"


class StepError(InputError):
    """Steps that do not fit the response they are said to come from."""

    code = "steps"


class ImageError(InputError):
    """An image that cannot be turned into pixels."""

    code = "image"


class MissingImageError(ImageError):
    """An image that is not there: no such file, or a problem without any image."""

    code = "image_missing"


class ImageFormatError(ImageError):
    """Bytes that are not an image of an allowed format."""

    code = "image_format"


class ImageLimitError(ImageError):
    """An image, or a number of images, beyond a limit."""

    code = "image_limit"


class ImageSourceError(ImageError):
    """A kind of image source that is switched off or not understood."""

    code = "image_source"


class ProfileError(InputError):
    """A profile that is not usable; the message names the key."""

    code = "profile"


class AlignmentError(InputError):
    """Tokens that do not spell the text they are said to be the tokens of."""

    code = "alignment"


class CheckpointError(InputError):
    """A model folder or name that is not a usable vision-language checkpoint."""

    code = "checkpoint"


class LabelError(InputError):
    """A label, in OpenRLHF's sense, that does not carry what a rollout's problem needs."""

    code = "label"


class RowError(InputError):
    """A row of an input file that cannot be used.

    Args:
        message: what is wrong, with the value and the remedy.
        line: 1-based line number in the file.
        field: name of the offending field, or None when the whole row is unreadable.
    """

    code = "row"

    def __init__(self, message: str, *, line: int, field: str | None = None) -> None:
        where = f"line {line}" if field is None else f"line {line}, field '{field}'"
        super().__init__(f"{where}: {message}")
        self.line = line
        self.field = field


class ResponseError(VRPRMError):
    """The response cannot be judged, by its own doing (empty, too many steps, too long).

    Args:
        message: what is wrong, with the value and the limit.
        code: `response_empty`, `response_not_text` or `too_many_steps`.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.reason = code


class EngineError(VRPRMError):
    """The engine failed; the rollout is not to blame."""

    code = "engine"


class PromptTooLongError(EngineError):
    """A prompt that does not fit the model's context.

    Args:
        tokens: length of the prompt in tokens, images included.
        limit: the model's context in tokens, less what is to be generated.
        thinking: tokens of thinking for which the prompt left no room.
    """

    code = "prompt_too_long"

    def __init__(self, *, tokens: int, limit: int, thinking: int = 0) -> None:
        beside = f" beside {thinking} tokens of thinking" if thinking else ""
        super().__init__(f"the prompt has {tokens} tokens and the model takes {limit}{beside}")
        self.tokens = tokens
        self.limit = limit


class ProblemTooLongError(EngineError):
    """A problem that fills the model's context, so that no response to it can be judged.

    Args:
        tokens: length of a prompt with the shortest response, in tokens, images included.
        limit: the model's context in tokens, less what is to be generated.
    """

    code = "problem_too_long"

    def __init__(self, *, tokens: int, limit: int) -> None:
        super().__init__(
            f"whatever the response, the prompt has {tokens} tokens and the model takes {limit}: "
            "shorten the question, lower pixels.max_pixels or think.max_tokens in the profile, or "
            "serve the model with a longer context"
        )
        self.tokens = tokens
        self.limit = limit


class AnalysisError(EngineError):
    """The generated step analysis does not have exactly one line for each step."""

    code = "analysis_lines"


class NonFiniteLogitsError(EngineError):
    """The model answered NaN or infinity where a probability is read."""

    code = "non_finite_logits"


class EngineClosedError(EngineError):
    """The engine was closed before this work was done."""

    code = "engine_closed"


class MissingExtraError(VRPRMError, ImportError):
    """An optional dependency is missing; the message has the install command."""

    code = "missing_extra"
