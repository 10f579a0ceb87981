"""What the clients of reward servers and of model servers share about their connections."""

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from vrprm_reward.errors import InputError


def bearer_token(value: str | None, name: str) -> str | None:
    """A bearer token without the blanks and line breaks around it; None where nothing is left.

    Args:
        value: as it came from a file, a variable or a caller.
        name: where it came from, for the message.

    Raises:
        InputError: it holds what no HTTP header can. The message does not show it.
    """
    token = (value or "").strip()
    if not token.isascii() or not token.isprintable():
        raise InputError(
            f"{name} has characters that are not printable ASCII: copy it again, without line "
            "breaks and typographic signs"
        )
    return token or None


@contextlib.contextmanager
def proxies_of_the_environment() -> Iterator[None]:
    """For making an HTTP client, which reads `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY`.

    Raises:
        InputError: one of these cannot be used.
    """
    try:
        yield
    except ImportError as error:
        if "socks" not in str(error).lower():
            raise
        raise InputError(
            "the environment names a SOCKS proxy (ALL_PROXY, HTTP_PROXY or HTTPS_PROXY), which "
            "needs one more package: pip install 'httpx2[socks]', or use none: NO_PROXY='*'"
        ) from None
    except ValueError as error:
        if "proxy" not in str(error).lower():
            raise
        raise InputError(
            "the environment names a proxy that is no URL of a known kind (ALL_PROXY, HTTP_PROXY "
            "or HTTPS_PROXY): write http://host:port, or use none: NO_PROXY='*'"
        ) from None


def through_proxy(url: str) -> str:
    """For messages: ` through the proxy http://host:port` where one of the environment's is on the
    way to `url`, else nothing. Without user and password."""
    target = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or not target.hostname or proxy_bypass(target.hostname):
        return ""
    scheme, found, rest = proxy.rpartition("://")
    place = rest.rpartition("@")[2].partition("/")[0]
    return f" through the proxy {scheme if found else 'http'}://{place}"
