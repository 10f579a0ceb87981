"""Keys of content: what tells finished work from work that is still to be done."""

import functools
import hashlib
import json
import os
from pathlib import Path

from PIL import Image

from vrprm_reward.errors import ImageSourceError
from vrprm_reward.images import ImageSettings
from vrprm_reward.jobs.fields import path_of_reference
from vrprm_reward.types import ImageSource, Problem, Rollout

KEY_BYTES = 16


def problem_key(problem: Problem) -> bytes:
    """16 bytes, equal for the same question and the same names (or bytes) of images."""
    images = [_name(image) for image in problem.images]
    return digest([problem.question, images])


def rollout_key(rollout: Rollout, images: ImageSettings, asker: str) -> bytes:
    """16 bytes, equal for rollouts that get equal scores: contents of images count, not names.

    Args:
        rollout: what is scored.
        images: where relative paths start.
        asker: whatever else decides the score: model, profile, division into steps.
    """
    problem = rollout.problem
    pictures = [image_digest(image, images) for image in problem.images]
    steps = None if rollout.steps is None else [(step.start, step.end) for step in rollout.steps]
    return digest(
        [asker, problem.question, problem.reference_answer, pictures, rollout.response, steps]
    )


def digest(content: object) -> bytes:
    """16 bytes of a hash of plain JSON values."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def image_digest(image: ImageSource, settings: ImageSettings) -> str:
    """A hash of what an image contains; of its address where it is fetched over a network."""
    if isinstance(image, Image.Image):
        header = f"{image.mode} {image.size} "
        return hashlib.blake2b(header.encode() + image.tobytes(), digest_size=KEY_BYTES).hexdigest()
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=KEY_BYTES).hexdigest()
    reference = os.fspath(image)
    if reference[:5].lower() == "data:":
        return hashlib.blake2b(reference.encode(), digest_size=KEY_BYTES).hexdigest()
    try:
        return _file_digest(path_of_reference(reference, settings))
    except (OSError, ValueError, ImageSourceError):
        # A file that is not there, or an address: the scorer will say what is wrong with it.
        return f"name {reference}"


def _file_digest(path: Path) -> str:
    state = path.stat()
    return _digest_of_file(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _digest_of_file(path: Path, modified: int, size: int) -> str:  # noqa: ARG001  part of the key
    return hashlib.blake2b(path.read_bytes(), digest_size=KEY_BYTES).hexdigest()


def _name(image: ImageSource) -> str:
    if isinstance(image, str):
        return image
    if isinstance(image, Image.Image):
        return f"object {id(image)}"
    if isinstance(image, bytes):
        return hashlib.blake2b(image, digest_size=KEY_BYTES).hexdigest()
    return os.fspath(image)


def checkpoint_fingerprint(name: str) -> str:
    """The name of a model and, where it is a folder, the sizes and times of the files in it."""
    folder = Path(name)
    if "://" in name or not folder.is_dir():
        return name
    files = [
        (file.name, state.st_size, state.st_mtime_ns)
        for file in sorted(folder.iterdir())
        if file.is_file() and (state := file.stat())
    ]
    return f"{name} {digest(files).hex()}"
