import contextlib
import ipaddress
import re
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from tests.images.pictures import PNG, solid
from vrprm_reward.errors import (
    ImageFormatError,
    ImageLimitError,
    ImageSourceError,
    MissingImageError,
)
from vrprm_reward.images import FinalImage, ImageSettings, load_image
from vrprm_reward.images.urls import is_public


class ImageServer(ThreadingHTTPServer):
    """Serves well and badly behaved answers by path, and remembers the Host headers it saw."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.hosts = []
        self.stopping = threading.Event()

    def handle_error(self, request, client_address):
        """Clients that hang up are what these tests are about."""


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.hosts.append(self.headers["Host"])
        path, _, target = self.path.partition("?")
        if path == "/a.png":
            self.answer(200, PNG, length=len(PNG))
        elif path == "/redirect":
            self.answer(302, location=target)
        elif path == "/announced":
            self.answer(200, b"", length=10**9)
        elif path == "/endless":
            self.answer(200)
            self.drip(bytes(65536), 0)
        elif path == "/dripping-body":
            self.answer(200)
            self.drip(b"x", 0.02)
        elif path == "/dripping-header":
            self.drip(b"H", 0.02)
        else:
            self.answer(int(path[1:]), b"<html>")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("length", "Content-Length"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, piece, pause):
        while not self.server.stopping.wait(pause):
            self.wfile.write(piece)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server():
    with running(ImageServer()) as started:
        yield started


@pytest.fixture
def names(monkeypatch):
    """Names that resolve to given addresses, and the names that were looked up, in order."""
    known, looked_up = {}, []
    real = socket.getaddrinfo

    def lookup(host, port, *args, **kwargs):
        if host not in known:
            return real(host, port, *args, **kwargs)
        looked_up.append(host)
        return [entry for each in known[host] for entry in real(each, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    known["looked up"] = looked_up
    return known


def local(**changes):
    settings = {
        "allow_urls": True, "url_hosts": ("127.0.0.1",), "url_allow_private": True,
        "url_timeout": 20,
    }  # fmt: skip
    return ImageSettings(**settings | changes)


def test_an_image_is_fetched_from_an_allowed_host_also_over_redirects(server):
    base = f"http://127.0.0.1:{server.server_port}"
    direct = FinalImage(load_image(f"{base}/a.png", local()))
    assert direct == FinalImage(solid())
    redirected = load_image(f"{base.upper()}/redirect?/redirect?{base}/a.png", local())
    assert FinalImage(redirected) == direct


@pytest.mark.parametrize(
    ("path", "changes", "error", "message"),
    [
        ("/404", {}, MissingImageError, "answered 404: check the URL"),
        ("/410", {}, MissingImageError, "answered 410"),
        ("/500", {}, MissingImageError, "answered 500"),
        ("/200", {}, ImageFormatError, r"/200' is not an image of an allowed format"),
        ("/announced", {}, ImageLimitError, r"max_bytes = 20,971,520"),
        ("/endless", {"max_bytes": 10**6}, ImageLimitError, "max_bytes = 1,000,000"),
        ("/dripping-body", {"url_timeout": 0.3}, MissingImageError, "within 0.3 s: raise url_time"),
        ("/dripping-header", {"url_timeout": 0.3}, MissingImageError, "within 0.3 s"),
        ("/redirect?/redirect?/redirect?/redirect?/a.png", {}, MissingImageError, "more than 3"),
        ("/redirect?http://localhost/a.png", {}, ImageSourceError, "'localhost' is not in url_ho"),
        ("/redirect?file:///etc/passwd", {}, ImageSourceError, "neither http nor https"),
        ("/redirect?//127.0.0.1\\@localhost/", {}, ImageSourceError, "backslash"),
        ("/redirect?http://[::1", {}, ImageSourceError, "redirected to what is no URL"),
    ],
)
def test_what_a_server_does_wrong_is_told(server, path, changes, error, message):
    with pytest.raises(error, match=message):
        load_image(f"http://127.0.0.1:{server.server_port}{path}", local(**changes))


@pytest.mark.parametrize("host", ["*.example.org", "http://example.org", "example.org:80"])
def test_what_is_no_exact_host_name_is_refused(host):
    with pytest.raises(ValidationError, match=re.escape(repr(host))):
        local(url_hosts=(host,))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost/a.png", r"'localhost' is not in url_hosts \('127.0.0.1',\): add it"),
        ("http://sub.127.0.0.1/a.png", "not in url_hosts"),
        ("http://me:secret@127.0.0.1/a.png", r"//\.\.\.@127.0.0.1/a.png' has a user name"),
        ("http://127.0.0.1\\@localhost/a.png", "backslash"),
        ("http://127.0.0.1/a\n.png", "control character"),
        ("http://127.0.0.1/\ud800.png", "half a surrogate pair"),
        ("http://127.0.0.1:port/a.png", "not a valid URL"),
        ("http:///a.png", "no plain host name"),
        ("http://ex\u00e4mple/a.png", "punycode"),
        ("http://[fe80::1%25lo]/a.png", "no plain host name"),
    ],
)
def test_urls_that_are_ambiguous_or_not_allowed_are_never_asked(url, message, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(ImageSourceError, match=message) as caught:
        load_image(url, local())
    assert "secret" not in str(caught.value)


def test_hosts_on_private_addresses_are_refused_without_telling_the_address(names, server):
    names["images.example"] = ["8.8.8.8", "127.0.0.1"]
    for host in ("images.example", "127.0.0.1", "2130706433", "0x7f.1", "[::1]", "localhost"):
        url = f"http://{host}:{server.server_port}/a.png"
        with pytest.raises(ImageSourceError, match="set url_allow_private") as caught:
            load_image(url, local(url_hosts=("*",), url_allow_private=False))
        assert "8.8.8.8" not in str(caught.value)
    assert server.hosts == []


def test_the_name_is_looked_up_once_and_what_was_checked_is_connected_to(names, server):
    names["images.example"] = ["127.0.0.1"]
    url = f"http://images.example:{server.server_port}/a.png"
    assert load_image(url, local(url_hosts=("Images.example",))).size == (8, 6)
    assert names["looked up"] == ["images.example"]
    assert server.hosts == [f"images.example:{server.server_port}"]


def test_lookups_and_connections_that_fail_are_missing_images(names, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(MissingImageError, match=r"cannot be fetched \(.*refused"):
            load_image(f"http://127.0.0.1:{unused.getsockname()[1]}/?secret", local())
    names["nobody.example"] = []
    with pytest.raises(MissingImageError, match=r"'nobody.example' is not known"):
        load_image("http://nobody.example/a.png", local(url_hosts=("*",)))
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: hang.wait() and [])
    with pytest.raises(MissingImageError, match=r"within 0.1 s"):
        load_image("http://127.0.0.1/a.png", local(url_timeout=0.1))
    hang.set()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_https_checks_the_certificate_against_the_name_and_not_the_address(
    names, tmp_path, monkeypatch
):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", key, "-out", cert),
            *("-addext", "subjectAltName=DNS:images.example"),
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    names["images.example"] = names["other.example"] = ["127.0.0.1"]
    server = ImageServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with running(server):
        settings = local(url_hosts=("*",))
        url = f"https://images.example:{server.server_port}/a.png"
        assert load_image(url, settings).size == (8, 6)
        with pytest.raises(MissingImageError, match="certificate"):
            load_image(url.replace("images.", "other."), settings)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("10.0.0.1", False), ("127.0.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("224.0.0.1", False), ("240.0.0.1", False), ("0.0.0.0", False),
        ("2606:4700::1111", True), ("::1", False), ("fe80::1", False), ("fc00::1", False),
        ("ff02::1", False), ("::", False), ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True), ("2002:7f00:1::", False),
        ("fec0::1", False), ("::7f00:1", False),
    ],
)  # fmt: skip
def test_only_public_addresses_count_as_public(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize("hosts", [(), ("http://a.example",), ("a.example:80",), ("a@b",)])
def test_url_settings_need_plain_host_names(hosts):
    with pytest.raises(ValueError, match=r"url_hosts|leave out scheme"):
        ImageSettings(allow_urls=True, url_hosts=hosts)
