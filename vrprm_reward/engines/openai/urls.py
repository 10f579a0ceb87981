"""Base URLs of model servers, as people write them. Needs no HTTP client."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from vrprm_reward.errors import InputError


def parse_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Base URLs, checked, with `/v1` where no path was given. Raises `InputError`."""
    if isinstance(urls, str) or not urls:
        raise InputError(f"{urls!r}: pass a list of base URLs such as ['http://127.0.0.1:8000/v1']")
    found = []
    for url in urls:
        try:
            parts = urlsplit(url.strip())
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise InputError(
                f"{_shown(url)!r} is no base URL: write it like http://127.0.0.1:8000/v1"
            )
        found.append(url.strip().rstrip("/") + ("" if parts.path.strip("/") else "/v1"))
    if len(set(found)) < len(found):
        shown = [_shown(url) for url in found]
        raise InputError(f"a base URL stands twice in {shown}: name each server once")
    return tuple(found)


def _shown(url: str) -> str:
    """Without user and password."""
    return re.sub(r"//[^/]*@", "//", url)
