"""Image references -> the bytes behind them: files, URLs, data URLs, bytes."""

import os
import re
import stat
from pathlib import Path

from vrprm_reward.errors import ImageSourceError, MissingImageError
from vrprm_reward.images.settings import ImageSettings
from vrprm_reward.images.urls import (
    describe_url,
    fetch_image_bytes,
    path_of_file_url,
    read_data_url,
)


def read_source(
    source: str | os.PathLike[str] | bytes, settings: ImageSettings
) -> tuple[str, bytes]:
    """(name for messages, encoded bytes); of a file, at most one byte more than `max_bytes`."""
    if isinstance(source, bytes):
        if not source:
            raise MissingImageError("the image is an empty bytes object: pass a file's bytes")
        return f"image of {len(source):,} bytes", source
    if not isinstance(source, str | os.PathLike):
        raise ImageSourceError(
            f"{type(source).__name__} is no image source: pass a PIL image, a path, a URL or bytes"
        )
    reference = os.fspath(source)
    if not isinstance(reference, str) or not reference.strip():
        raise MissingImageError(f"the image is {reference!r}: name a file, or pass the image")
    scheme = re.match(r"data:|[a-z][a-z0-9+.-]*://", reference, re.IGNORECASE)
    if scheme is None or not isinstance(source, str):
        return _read_file(reference, settings)
    kind = scheme[0].lower()
    if kind == "data:":
        return f"data URL ({len(reference):,} characters)", read_data_url(reference)
    if kind in ("http://", "https://"):
        return describe_url(reference), _fetch(reference, settings)
    if kind == "file://":
        return _read_file(path_of_file_url(reference), settings)
    raise ImageSourceError(
        f"{describe_url(reference)}: {kind} is not understood: download the image first"
    )


def _fetch(url: str, settings: ImageSettings) -> bytes:
    if not settings.allow_urls:
        raise ImageSourceError(
            f"{describe_url(url)}: fetching is off: download the image first, or set allow_urls "
            "and url_hosts"
        )
    return fetch_image_bytes(
        url,
        hosts=settings.url_hosts,
        allow_private=settings.url_allow_private,
        timeout=settings.url_timeout,
        max_bytes=settings.max_bytes,
    )


def _read_file(reference: str, settings: ImageSettings) -> tuple[str, bytes]:
    path = (settings.root or Path()) / reference
    text = str(path)
    name = f"file {text!r}" if len(text) <= 300 else f"file '{text[:150]}...{text[-147:]}'"
    if not settings.allow_paths:
        raise ImageSourceError(f"{name}: paths are off: pass bytes or a data URL, or allow_paths")
    try:
        if settings.allowed_folders is not None:
            path = path.resolve()
            if not any(path.is_relative_to(each.resolve()) for each in settings.allowed_folders):
                folders = ", ".join(map(str, settings.allowed_folders))
                raise ImageSourceError(
                    f"{name} is not in allowed_folders ({folders}): move it there, or add its own"
                )
        with open(path, "rb", opener=_open_at_once) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return name, file.read(settings.max_bytes + 1)
    except ImageSourceError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a NUL in the path. RuntimeError: symbolic links in a circle (Python 3.11).
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise MissingImageError(
            f"{name} cannot be read ({reason}): check the path and what it is relative to "
            f"({settings.root or 'the working directory'}); base64 text needs "
            "'data:image/png;base64,' before it"
        ) from error
    raise MissingImageError(f"{name} is not a regular file: name an image file")


def _open_at_once(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its writer, perhaps for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
