import base64
import contextlib
import io
import ipaddress
import os
import pickle
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import warnings
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from vrprm_reward.errors import (
    ImageError,
    ImageFormatError,
    ImageLimitError,
    ImageSourceError,
    MissingImageError,
)
from vrprm_reward.image_urls import is_public
from vrprm_reward.images import (
    FinalImage,
    ImageSettings,
    PixelLimits,
    final_pixels,
    load_image,
)

KEEP_SIZE = PixelLimits()
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def solid(mode="RGB", color=RED, size=(8, 6)):
    return Image.new(mode, size, color)


def noise(size=(32, 24)):
    return Image.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1]))


def png_header(width, height):
    """A PNG that says how large it is and has no pixels."""

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def palette(transparent=None):
    image = solid("P", 1)
    image.putpalette([0, 0, 0, *RED])
    return encoded(image, **({} if transparent is None else {"transparency": transparent}))


PNG = encoded(solid())
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


# ---- formats and modes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "color"),
    [
        pytest.param(PNG, RED, id="png"),
        pytest.param(encoded(solid("RGBA", (255, 0, 0, 0))), WHITE, id="png transparent"),
        pytest.param(encoded(solid("RGBA", (0, 0, 0, 51))), (204,) * 3, id="png half transparent"),
        pytest.param(encoded(solid("LA", (0, 51))), (204,) * 3, id="png grey and alpha"),
        pytest.param(palette(), RED, id="palette"),
        pytest.param(palette(transparent=1), WHITE, id="palette with a transparent colour"),
        pytest.param(palette(transparent=b"\xff\x33"), (255, 204, 204), id="palette with alphas"),
        pytest.param(encoded(solid(), transparency=RED), WHITE, id="rgb with a transparent colour"),
        pytest.param(encoded(solid("L", 90)), (90,) * 3, id="grey"),
        pytest.param(encoded(solid("1", 1)), WHITE, id="one bit"),
        pytest.param(encoded(solid("1", 0), transparency=0), WHITE, id="one bit, transparent"),
        pytest.param(encoded(solid("I;16", 0x1234)), (0x12,) * 3, id="16 bit grey"),
        pytest.param(encoded(solid("I;16", 0x1234), transparency=0x1234), WHITE, id="16 bit tRNS"),
        pytest.param(encoded(solid("I;16", 0x1234), transparency=0x1235), (0x12,) * 3, id="other"),
        pytest.param(encoded(solid(), "WEBP", lossless=True), RED, id="webp"),
        pytest.param(encoded(solid("RGBA", (0, 0, 0, 0)), "WEBP"), WHITE, id="webp transparent"),
        pytest.param(encoded(solid(), "BMP"), RED, id="bmp"),
        pytest.param(encoded(solid("L", 90), "JPEG"), (90,) * 3, id="grey jpeg"),
        pytest.param(encoded(solid("CMYK", (0, 255, 255, 0)), "JPEG"), (254, 0, 0), id="cmyk jpeg"),
    ],
)
def test_every_encoding_becomes_opaque_rgb(data, color):
    image = load_image(data)
    assert image.mode == "RGB"
    assert image.size == (8, 6)
    assert image.info == {}
    assert all(abs(a - b) <= 1 for a, b in zip(image.getpixel((3, 3)), color, strict=True))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_a_16_bit_gradient_is_scaled_and_not_clipped(mode):
    image = Image.new(mode, (256, 4))
    for x in range(256):
        for y in range(4):
            image.putpixel((x, y), x * 257)
    assert [load_image(image).getpixel((x, 2))[0] for x in range(256)] == list(range(256))


@pytest.mark.parametrize(("mode", "color"), [("La", (0, 51)), ("PA", 0), ("YCbCr", 0), ("HSV", 0)])
def test_rare_modes_of_pil_images_become_rgb(mode, color):
    assert load_image(Image.new(mode, (8, 6), color)).mode == "RGB"


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", -1), ("I", 70_000)])
def test_values_without_a_known_range_are_refused_rather_than_guessed(mode, value):
    with pytest.raises(ImageFormatError, match=rf"mode {mode} .* scale it to 8 bits"):
        load_image(Image.new(mode, (8, 6), value))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_the_exif_orientation_is_applied_once(image_format):
    image = noise()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, image_format, exif=exif)
    upright = load_image(data)
    assert upright.size == (24, 32)
    assert load_image(upright).size == (24, 32)
    assert load_image(Image.open(io.BytesIO(data))).tobytes() == upright.tobytes()
    if image_format == "PNG":
        assert upright.tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()


def test_a_pil_image_handed_in_is_left_as_it_is():
    image = solid("P", 1)
    image.info["transparency"] = 1
    before = image.tobytes(), image.mode, dict(image.info)
    load_image(image).paste(GREEN, (0, 0, 8, 6))
    assert (image.tobytes(), image.mode, image.info) == before
    rgb = solid()
    load_image(rgb).paste(GREEN, (0, 0, 8, 6))
    assert rgb.getpixel((0, 0)) == RED


def test_one_lazy_pil_image_can_be_loaded_from_many_threads():
    lazy = Image.open(io.BytesIO(encoded(noise((300, 300)))))
    expected = noise((300, 300)).tobytes()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(load_image(lazy).tobytes() == expected))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_of_a_camera_file_with_a_preview_the_main_picture_is_taken():
    data = encoded(noise(), "MPO", save_all=True, append_images=[solid()])
    assert load_image(data).size == (32, 24)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_animated_images_are_refused(image_format):
    data = encoded(solid(), image_format, save_all=True, append_images=[solid(color=GREEN)])
    with pytest.raises(ImageFormatError, match="animated: save the frame"):
        load_image(data)


# ---- what cannot be decoded -------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"just text", id="text"),
        pytest.param(encoded(solid(), "GIF"), id="gif"),
        pytest.param(encoded(solid(), "TIFF"), id="tiff"),
        pytest.param(b"\x89PNG\r\n\x1a\n", id="only a signature"),
        pytest.param(encoded(noise())[:-200], id="truncated png"),
        pytest.param(encoded(noise(), "JPEG")[:-200], id="truncated jpeg"),
        pytest.param(encoded(noise(), "WEBP")[:-100], id="truncated webp"),
        pytest.param(encoded(noise(), "BMP")[:-100], id="truncated bmp"),
    ],
)
def test_bytes_that_are_no_whole_image_are_a_format_error_that_does_not_show_them(data):
    with pytest.raises(ImageFormatError, match=rf"image of {len(data):,} bytes .*PNG") as caught:
        load_image(data)
    assert "0x" not in str(caught.value)


def test_a_format_that_is_not_allowed_is_refused():
    with pytest.raises(ImageFormatError, match=r"allowed format \(JPEG\)"):
        load_image(PNG, ImageSettings(formats=("JPEG",)))


@given(
    image_format=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]),
    place=st.integers(0, 10_000),
    junk=st.binary(max_size=8),
    cut=st.integers(0, 400),
)
def test_damaged_bytes_are_an_image_or_an_image_error(image_format, place, junk, cut):
    data = bytearray(encoded(noise(), image_format, exif=Image.Exif()))
    place %= len(data)
    data[place : place + len(junk)] = junk
    with contextlib.suppress(ImageError):
        assert load_image(bytes(data[: len(data) - cut])).mode == "RGB"


# ---- limits -----------------------------------------------------------------------------------


def webp_header(width, height):
    """A lossless WebP that says how large it is and has no pixels."""
    chunk = b"VP8L" + struct.pack("<IBI", 5, 0x2F, (width - 1) | (height - 1) << 14)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_header(10_000, 10_000), id="100 megapixels"),
        pytest.param(png_header(60_000, 60_000), id="3600 megapixels"),
        pytest.param(webp_header(16_000, 16_000), id="webp"),
    ],
)
def test_a_decompression_bomb_is_refused_from_its_header_and_without_warning(data):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageLimitError), warnings.catch_warnings(record=True) as seen:
        load_image(data)
    assert seen == []
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("image", "settings", "message"),
    [
        (solid(size=(1, 1)), {}, "1 x 1 pixels, and min_side = 4"),
        (solid(size=(1200, 4)), {}, "1200 x 4 pixels, and max_aspect_ratio = 200"),
        (solid(size=(4, 1200)), {}, "4 x 1200 pixels, and max_aspect_ratio = 200"),
        (solid(size=(11, 10)), {"max_pixels_decoded": 100}, "max_pixels_decoded = 100"),
    ],
)
def test_size_limits_hold_for_files_and_for_pil_images(image, settings, message):
    for source in (image, encoded(image)):
        with pytest.raises(ImageLimitError, match=message):
            load_image(source, ImageSettings(**settings))
    assert load_image(solid(size=(800, 4))).size == (800, 4)


def test_the_byte_limit_holds_for_every_encoded_source(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    settings = ImageSettings(max_bytes=len(PNG) - 1)
    for source in (PNG, DATA_URL, tmp_path / "a.png"):
        with pytest.raises(ImageLimitError, match=rf"max_bytes = {len(PNG) - 1:,}"):
            load_image(source, settings)
        assert load_image(source, ImageSettings(max_bytes=len(PNG))).size == (8, 6)


def test_seventeen_images_are_too_many_and_none_is_too_few():
    with pytest.raises(ImageLimitError, match="17 images are more than max_images = 16"):
        final_pixels([PNG] * 17, KEEP_SIZE)
    with pytest.raises(MissingImageError, match="no image"):
        final_pixels([], KEEP_SIZE)
    with pytest.raises(ImageSourceError, match="put it in"):
        final_pixels("a.png", KEEP_SIZE)


# ---- sources ----------------------------------------------------------------------------------


def test_equal_pixels_are_equal_wherever_they_come_from(tmp_path):
    path = tmp_path / "a b%20.png"
    path.write_bytes(PNG)
    sources = [
        solid(),
        PNG,
        encoded(solid(), "BMP"),
        path,
        str(path),
        path.as_uri(),
        path.as_uri().replace("file://", "file://localhost"),
        DATA_URL,
        DATA_URL.replace("data:", "DATA:").rstrip("="),
        f"data:image/png,{quote_from_bytes(PNG)}",
        f"data:;base64,{quote_from_bytes(base64.encodebytes(PNG))}",
    ]
    finals = final_pixels(sources, KEEP_SIZE)
    assert len({final.digest for final in finals}) == len(set(finals)) == 1
    assert FinalImage(solid(size=(6, 8))) != finals[0] != FinalImage(solid(color=GREEN))


def test_final_images_travel_without_loss_and_without_metadata():
    image = noise()
    image.info["icc_profile"] = b"profile"
    image.info["transparency"] = image.getpixel((0, 0))
    (final,) = final_pixels([image], KEEP_SIZE)
    reopened = Image.open(io.BytesIO(final.png()))
    assert reopened.info == {}
    assert reopened.tobytes() == final.image.tobytes()
    assert final_pixels([final.data_url()], KEEP_SIZE) == (final,)
    assert pickle.loads(pickle.dumps(final)) == final


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("", MissingImageError, "image is ''"),
        (b"", MissingImageError, "empty bytes"),
        ("no/such.png", MissingImageError, r"'no/such.png' cannot be read \(No such file"),
        (Path("no/such.png"), MissingImageError, r"check the path"),
        ("file:///no/such.png", MissingImageError, r"'/no/such.png'"),
        ("nul\0.png", MissingImageError, "not a usable path"),
        (base64.b64encode(bytes(300)).decode(), MissingImageError, "base64 text needs"),
        ("file://elsewhere/a.png", ImageSourceError, "names the machine 'elsewhere'"),
        ("s3://bucket/a.png", ImageSourceError, "s3:// is not understood"),
        (3, ImageSourceError, "int is no image source"),
        ("data:image/png;base64", ImageFormatError, "no comma"),
        ("data:image/png;base64,a?b", ImageFormatError, "not valid base64"),
        ("data:image/png;base64,abcde", ImageFormatError, "not valid base64"),
        ("https://images.example/a.png", ImageSourceError, "set allow_urls"),
    ],
)
def test_an_unusable_reference_is_named_with_its_position_and_a_remedy(source, error, message):
    with pytest.raises(error, match=message) as caught:
        final_pixels([PNG, source], KEEP_SIZE)
    assert str(caught.value).startswith("image 2 of 2: ")
    assert len(str(caught.value)) < 600


def test_folders_and_pipes_are_missing_images(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [(tmp_path, "Is a directory"), (tmp_path / "pipe", "not a regular file")]:
        with pytest.raises(MissingImageError, match=reason):
            load_image(path)


def test_relative_paths_start_from_the_root_setting(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    assert load_image("a.png", ImageSettings(root=tmp_path)).size == (8, 6)
    with pytest.raises(MissingImageError, match=str(tmp_path)):
        load_image("b.png", ImageSettings(root=tmp_path))


def test_files_stay_inside_the_allowed_folders(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    for folder in (inside, outside):
        (folder / "a.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "circle.png").symlink_to(inside / "circle.png")
    (tmp_path / "door").symlink_to(inside)
    settings = ImageSettings(root=inside, allowed_folders=(tmp_path / "door",))
    assert load_image("a.png", settings).size == (8, 6)
    for path in ("link.png", "../outside/a.png", outside / "a.png", f"file://{outside}/none.png"):
        with pytest.raises(ImageSourceError, match="not in allowed_folders"):
            load_image(path, settings)
    with pytest.raises(MissingImageError):
        load_image("circle.png", settings)
    with pytest.raises(ImageSourceError, match="paths are off"):
        load_image("a.png", ImageSettings(allow_paths=False))


# ---- final size -------------------------------------------------------------------------------

SIDES = st.integers(4, 5000)


@pytest.fixture(scope="module")
def smart_resize():
    name = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
    return pytest.importorskip(name).smart_resize


@given(
    width=SIDES,
    height=SIDES,
    multiple=st.sampled_from([1, 14, 28, 32]),
    least=st.integers(1, 10**7),
    more=st.integers(1, 10**7),
)
def test_sizes_are_those_of_the_models_own_processor(
    smart_resize, width, height, multiple, least, more
):
    assume(max(width, height) <= 200 * min(width, height))
    most = max(least, multiple**2) + more
    limits = PixelLimits(min_pixels=least, max_pixels=most, multiple_of=multiple)
    assert limits.fit(width, height)[::-1] == smart_resize(height, width, multiple, least, most)


@given(SIDES, SIDES, st.sampled_from([1, 14, 28, 32]), st.integers(1, 10**6), st.floats(1, 50))
def test_fitting_twice_is_fitting_once(width, height, multiple, least, roominess):
    assume(max(width, height) <= 200 * min(width, height))
    most = int(max(4 * least, 200 * multiple**2) * roominess)
    limits = PixelLimits(min_pixels=least, max_pixels=most, multiple_of=multiple)
    once = limits.fit(width, height)
    assert limits.fit(*once) == once
    assert all(side % multiple == 0 for side in once)


def test_final_pixels_are_resized_to_the_limits_and_only_then():
    image = noise((100, 50))
    limits = PixelLimits(min_pixels=64 * 64, max_pixels=128 * 128, multiple_of=32)
    assert final_pixels([image], limits)[0].image.size == (96, 64)
    assert final_pixels([image], KEEP_SIZE)[0].image.tobytes() == image.tobytes()
    assert PixelLimits(max_pixels=200).fit(100, 50) == (20, 10)
    assert PixelLimits(min_pixels=20_000).fit(100, 50) == (200, 100)
    assert PixelLimits(multiple_of=32).fit(100, 5) == (96, 32)
    with pytest.raises(ValueError, match="no size fits"):
        PixelLimits(multiple_of=32, max_pixels=1000)


# ---- URLs -------------------------------------------------------------------------------------


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
    ],
)
def test_what_a_server_does_wrong_is_told(server, path, changes, error, message):
    with pytest.raises(error, match=message):
        load_image(f"http://127.0.0.1:{server.server_port}{path}", local(**changes))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost/a.png", r"'localhost' is not in url_hosts \('127.0.0.1',\): add it"),
        ("http://sub.127.0.0.1/a.png", "not in url_hosts"),
        ("http://me:secret@127.0.0.1/a.png", r"//\.\.\.@127.0.0.1/a.png' has a user name"),
        ("http://127.0.0.1\\@localhost/a.png", "backslash"),
        ("http://127.0.0.1/a\n.png", "control character"),
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
