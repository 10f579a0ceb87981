"""URLs -> bytes: `data:` URLs, and http(s) from hosts that are allowed by name and not internal.

Over http(s), what is checked is what is connected to: a host is resolved once, its addresses are
checked, and the connection goes to one of them, so a name cannot answer differently the second
time (DNS rebinding). Every redirect goes through the same checks. Proxies, cookies and credentials
of the environment are not used: a proxy would resolve the name again.
"""

import base64
import binascii
import contextlib
import ipaddress
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from vrprm_reward.errors import (
    ImageFormatError,
    ImageLimitError,
    ImageSourceError,
    MissingImageError,
)

MAX_REDIRECTS = 3
"""Redirects followed before giving up."""

ANY_HOST = "*"
"""The entry of an allow-list that admits every host with a public address."""

_PORTS = {"http": 80, "https": 443}
# Parsers disagree about a backslash, a space or a control character in a URL, and a host that one
# parser checks is then not the host that another one connects to.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class _Target:
    """A URL that passed the checks, in the parts that a request is built from."""

    scheme: str
    host: str
    port: int
    path_and_query: str
    name: str

    @property
    def netloc(self) -> str:
        """Host, and port where it is not the scheme's own, as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def describe_url(url: str) -> str:
    """A URL for a message: no query (signed URLs carry secrets there), at most 120 characters."""
    shown, _, query = url.partition("?")
    shown = re.sub(r"//[^/]*@", "//...@", shown)
    shown = shown if len(shown) <= 120 else f"{shown[:80]}...{shown[-37:]}"
    return f"URL {shown!r}" + (" (query left out)" if query else "")


def path_of_file_url(url: str) -> str:
    """The path that a `file://` URL names on this machine.

    Raises:
        ImageSourceError: it names another machine.
    """
    host, slash, path = url[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost"):
        raise ImageSourceError(
            f"{describe_url(url)} names the machine {host!r}: write file:///absolute/path"
        )
    return unquote(slash + path)


def read_data_url(url: str) -> bytes:
    """The bytes in a `data:` URL, in base64 or percent-encoded. Its media type is not looked at.

    Raises:
        ImageFormatError: it has no comma, its base64 is broken, or it is no text.
    """
    header, comma, payload = url.partition(",")
    if not comma:
        raise ImageFormatError(
            f"data URL ({len(url):,} characters) has no comma: write data:image/png;base64,..."
        )
    try:
        data = unquote_to_bytes(payload)
    except UnicodeEncodeError as error:
        raise ImageFormatError(
            f"data URL ({len(url):,} characters) holds half a surrogate pair, which is no text: "
            "encode the file's bytes with base64.b64encode"
        ) from error
    if not header.lower().endswith(";base64"):
        return data
    data = b"".join(data.split()).rstrip(b"=")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error as error:
        raise ImageFormatError(
            f"data URL ({len(url):,} characters) is not valid base64: encode the file's bytes with "
            "base64.b64encode"
        ) from error


def fetch_image_bytes(
    url: str,
    *,
    hosts: Sequence[str],
    allow_private: bool,
    timeout: float,
    max_bytes: int,
) -> bytes:
    """The body of `url`. Blocks for at most about `timeout` seconds, redirects included.

    Args:
        url: an `http://` or `https://` URL.
        hosts: exact host names that may be asked, in lower case; `"*"` admits every host.
        allow_private: also connect to private, loopback and other addresses that are not public.
        timeout: seconds for everything together: name lookup, redirects, the body.
        max_bytes: the largest body, in bytes; reading stops there.

    Raises:
        ImageSourceError: the URL, or one that it redirects to, is not allowed.
        ImageLimitError: the body is larger than `max_bytes`.
        MissingImageError: it is not there, cannot be reached, or took longer than `timeout`.
    """
    deadline = time.monotonic() + timeout
    try:
        for _ in range(MAX_REDIRECTS + 1):
            target = _checked_target(url, hosts)
            addresses = _checked_addresses(target, allow_private, deadline)
            body, location = _get_from_any(target, addresses, deadline, max_bytes)
            if location is None:
                return body
            url = _redirected(url, location)
    except TimeoutError as error:
        raise MissingImageError(
            f"{describe_url(url)} did not arrive within {timeout:g} s: raise url_timeout, or "
            "download the image first"
        ) from error
    raise MissingImageError(
        f"{describe_url(url)} is redirected more than {MAX_REDIRECTS} times: give the final URL"
    )


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise ImageSourceError(
            f"{describe_url(url)} is redirected to what is no URL: give the final URL"
        ) from error


def _checked_target(url: str, hosts: Sequence[str]) -> _Target:
    name = describe_url(url)
    if _AMBIGUOUS.search(url):
        raise ImageSourceError(
            f"{name} has a backslash, a space, a control character or half a surrogate pair: "
            "percent-encode it"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ImageSourceError(f"{name} is not a valid URL: {error}") from error
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS:
        raise ImageSourceError(f"{name} is neither http nor https: download the image first")
    if "@" in parts.netloc:
        raise ImageSourceError(f"{name} has a user name in it: remove all up to the '@'")
    if not _HOST.fullmatch(host):
        raise ImageSourceError(f"{name} has no plain host name: write the host in ASCII (punycode)")
    if ANY_HOST not in hosts and host not in hosts:
        raise ImageSourceError(
            f"{name}: the host {host!r} is not in url_hosts {tuple(hosts)}: add it there"
        )
    path_and_query = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(scheme, host, port or _PORTS[scheme], path_and_query, name)


def _checked_addresses(target: _Target, allow_private: bool, deadline: float) -> list[_Address]:
    addresses = _resolve(target, deadline)
    if not allow_private and not all(is_public(address) for address in addresses):
        # The address itself stays out of the message: the message may reach whoever sent the URL.
        raise ImageSourceError(
            f"{target.name}: the host {target.host!r} has a private, loopback or reserved "
            "address: download the image first, or set url_allow_private on a trusted network"
        )
    return addresses


def is_public(address: _Address) -> bool:
    """Whether an address, or the IPv4 address that it stands for, is on the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        # Tunnels (6to4, Teredo) end at an IPv4 address of the sender's choice.
        if address.sixtofour is not None or address.teredo is not None:
            return False
        return address in _GLOBAL_UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved


def _resolve(target: _Target, deadline: float) -> list[_Address]:
    answers: queue.SimpleQueue[list[_Address] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            unique = dict.fromkeys(str(entry[4][0]) for entry in found)
            answers.put([ipaddress.ip_address(text) for text in unique])
        except (OSError, ValueError) as error:
            answers.put(error)

    # getaddrinfo takes no timeout; a daemon thread may outlive this call without holding up exit.
    threading.Thread(target=look_up, name="image-url-lookup", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception) or not answer:
        raise MissingImageError(
            f"{target.name}: the host {target.host!r} is not known: check its spelling"
        ) from (answer if isinstance(answer, Exception) else None)
    return answer


def _get_from_any(
    target: _Target, addresses: Sequence[_Address], deadline: float, max_bytes: int
) -> tuple[bytes, str | None]:
    """(body, None), or (b"", location) for a redirect, from the first address that answers."""
    import httpx2

    failure: Exception | None = None
    for address in addresses:
        try:
            answer = _get(target, address, deadline, max_bytes)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if time.monotonic() >= deadline:
                raise TimeoutError from error
            failure = error
            continue
        # A body that lasts until its connection ends looks complete when it was cut off.
        if time.monotonic() >= deadline:
            raise TimeoutError
        return answer
    raise MissingImageError(
        f"{target.name} cannot be fetched ({failure}): check that the server is up and reachable"
    ) from failure


def _get(
    target: _Target, address: _Address, deadline: float, max_bytes: int
) -> tuple[bytes, str | None]:
    import httpx2

    ip = f"[{address}]" if address.version == 6 else str(address)
    left = max(0.001, deadline - time.monotonic())
    with (
        # A little late, so that a connection that was cut off always counts as out of time.
        _cut_off(left + 0.01) as watch,
        # A client of its own for each request: two hosts on one address must not share a TLS
        # connection, since its certificate was checked for one of them only. trust_env of the
        # transport concerns certificates (SSL_CERT_FILE), that of the client proxies and .netrc.
        httpx2.Client(
            transport=httpx2.HTTPTransport(trust_env=True), timeout=left, trust_env=False
        ) as client,
        client.stream(
            "GET",
            f"{target.scheme}://{ip}:{target.port}{target.path_and_query}",
            headers={"Host": target.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": target.host, "trace": watch},
        ) as response,
    ):
        if response.is_redirect and "location" in response.headers:
            return b"", response.headers["location"]
        if response.status_code != 200:
            raise MissingImageError(
                f"{target.name}: the server answered {response.status_code}: check the URL"
            )
        announced = int(response.headers.get("content-length", 0))
        body = bytearray()
        if announced <= max_bytes:
            # Raw, not decoded: a small compressed body may stand for an enormous one.
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > max_bytes:
                    break
    if max(announced, len(body)) > max_bytes:
        raise ImageLimitError(
            f"{target.name} has more than max_bytes = {max_bytes:,} bytes: make it smaller, or "
            "raise max_bytes"
        )
    return bytes(body), None


@contextlib.contextmanager
def _cut_off(seconds: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Ends a connection after `seconds`, whatever it is doing. Yields a trace callback for httpx2.

    The client's own timeouts restart with every packet, so a server that sends a byte now and
    then would never meet them.
    """
    sockets: list[socket.socket] = []

    def watch(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            # A duplicate, because starting TLS takes the original socket apart.
            sockets.append(info["return_value"].get_extra_info("socket").dup())

    def shut_down() -> None:
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        for connection in sockets:
            connection.close()
