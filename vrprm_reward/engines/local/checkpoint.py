"""Load a vision-language checkpoint with transformers, without torchvision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging

from vrprm_reward.engines.local.device import pick_device, pick_dtype
from vrprm_reward.errors import CheckpointError

SUPPORTED = ("qwen3_vl", "qwen2_5_vl")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    name: str
    model: Any
    tokenizer: Any
    image_processor: Qwen2VLImageProcessorPil

    @property
    def context_tokens(self) -> int:
        """Longest sequence the model takes, in tokens."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that end generated text."""
        config = self.model.generation_config
        ends = config.eos_token_id if config is not None else None
        if ends is None:
            ends = self.tokenizer.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or [])


def load_checkpoint(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Load model, tokenizer and image processor from a folder or a model hub.

    Args:
        name: a transformers folder, or a model id.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        trust_remote_code: whether code that comes with the checkpoint may run.

    Raises:
        CheckpointError: nothing usable there, or not a vision-language model of a supported kind.
    """
    place = str(name)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"no checkpoint at {place!r}: pass a folder with config.json, or a model id that can "
            f"be reached or is in the local cache ({_first_line(error)})"
        ) from error
    if config.model_type not in SUPPORTED:
        raise CheckpointError(
            f"{place!r} is a {config.model_type!r} model; a visual process reward model must be "
            f"one of {', '.join(SUPPORTED)}"
        )
    where = pick_device(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(place)
        with _without_progress_bars():
            model, report = AutoModelForImageTextToText.from_pretrained(
                place,
                config=config,
                dtype=pick_dtype(where, dtype),
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{place!r} could not be loaded: {_first_line(error)}") from error
    if report["missing_keys"]:
        absent = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{place!r} lacks {len(absent)} of the model's weights, such as {absent[0]!r}: the "
            "files are incomplete or belong to another architecture"
        )
    return Checkpoint(
        place, model.to(where).eval().requires_grad_(False), tokenizer, image_processor
    )


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Loading is quiet: a command has a progress bar of its own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
