"""Hostile requests: each has a name, what is sent, and the answers that are in order."""

import base64
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.server.doubles import PICTURE, data_url, item, picture, query

ALLOWED_HOST = "localhost"


@dataclass(frozen=True)
class Hostile:
    name: str
    body: Any
    status: int = 422
    code: str | None = None
    """Of the error, or of the first unscored rollout where the status is 200."""
    route: str = "/v1/score"
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"


def png_of(width: int, height: int, *, data: bytes = b"", kind: int = 2) -> bytes:
    """A PNG whose header says anything."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", data or zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def batch(*items: Any, **more: Any) -> dict[str, Any]:
    return {"rollouts": list(items), **more}


def image(*references: Any) -> dict[str, Any]:
    return batch(item(images=list(references)))


def reward(**changes: Any) -> dict[str, Any]:
    return {**query(), **changes}


def labelled(label: Any) -> dict[str, Any]:
    return reward(labels=[label])


def corpus(folder: Path, secret: Path) -> list[Hostile]:
    """Everything, for a server that reads below `folder`; `secret` is an image outside it."""
    inside = str(folder)
    (folder / "link.png").symlink_to(secret)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "folder-link").symlink_to(secret.parent)
    paths = {
        "an absolute path": "/etc/passwd",
        "the secret itself": str(secret),
        "dots out of the folder": f"{inside}/../{secret.parent.name}/{secret.name}",
        "many dots": "../" * 30 + "etc/passwd",
        "a symbolic link to a file": f"{inside}/link.png",
        "a symbolic link to a folder": f"{inside}/folder-link/{secret.name}",
        "a link in a circle": f"{inside}/loop.png",
        "a NUL in a path": f"{inside}/a.png\0.txt",
        "a file URL": "file:///etc/passwd",
        "a file URL with dots": f"file://{inside}/%2e%2e/{secret.parent.name}/{secret.name}",
        "a file URL of another machine": "file://evil.example/etc/passwd",
        "a home folder": "~/.ssh/id_rsa",
        "a process' memory": "/proc/self/mem",
        "a device": "/dev/zero",
        "a Windows share": r"\\evil\share\a.png",
        "an empty path": "",
        "a blank path": "  ",
        "a name as long as a book": "a" * 100_000,
    }
    urls = {
        "cloud metadata": "http://169.254.169.254/latest/meta-data/",
        "an internal address": "http://10.0.0.1/a.png",
        "IPv6 loopback": "http://[::1]:80/a.png",
        "an address as a number": "http://2130706433/a.png",
        "an address in octal": "http://0177.0.0.1/a.png",
        "an IPv4 address in IPv6": "http://[::ffff:127.0.0.1]/a.png",
        "a host in the user name": f"http://{ALLOWED_HOST}@10.0.0.1/a.png",
        "a subdomain of an allowed host": f"http://{ALLOWED_HOST}.evil.example/a.png",
        "another kind of URL": "ftp://localhost/a.png",
        "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
        "a script": "javascript://alert(1)",
        "a broken address": "http://[::1/a.png",
        "no host": "http:///a.png",
        "a backslash behind an allowed host": f"http://{ALLOWED_HOST}\\@10.0.0.1/a.png",
    }
    late_urls = {
        "an allowed host with a private address": f"http://{ALLOWED_HOST}/a.png",
        "a line break in a URL": f"http://{ALLOWED_HOST}/a\r\nX-Evil: 1",
        "a port of the metadata service": f"http://{ALLOWED_HOST}:80/latest",
    }
    images = {
        "one pixel": (picture(size=(1, 1)), "image_limit"),
        "a thin line": (picture(size=(4000, 4)), "image_limit"),
        "a decompression bomb": (png_of(60_000, 60_000), "image_limit"),
        "a bomb of the largest size": (png_of(2**31 - 1, 2**31 - 1), "image_limit"),
        "no size": (png_of(0, 0), "image_format"),
        "a GIF": (picture(kind="GIF"), "image_format"),
        "a TIFF": (picture(kind="TIFF"), "image_format"),
        "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image_format"),
        "a FITS": (b"SIMPLE  =                    T" + b" " * 3000, "image_format"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image_format"),
        "a pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "image_format"),
        "a ZIP": (b"PK\x03\x04" + b"\0" * 50, "image_format"),
        "nothing but a signature": (b"\x89PNG\r\n\x1a\n", "image_format"),
        "an animation": (animated(), "image_format"),
        "no bytes": (b"", "image_format"),
    }
    data_urls = {
        "base64 of nothing known": "data:image/png;base64,!!!!",
        "a data URL without a comma": "data:image/png;base64",
        "another media type": "data:text/html;base64," + base64.b64encode(b"<b>").decode(),
        "a data URL in capitals": "DATA:image/png;BASE64,AAAA",
    }
    deep = "[" * 100_000 + "]" * 100_000
    bodies = {
        "nothing": b"",
        "no JSON": b"{",
        "half a body": json.dumps(batch(item()))[:-20].encode(),
        "text behind the JSON": json.dumps(batch(item())).encode() + b"x",
        "deep nesting": deep.encode(),
        "deep nesting in a field": b'{"rollouts": ' + deep.encode() + b"}",
        "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "bytes that are no UTF-8": b'{"rollouts": "\xff\xfe"}',
        "UTF-16": json.dumps(batch()).encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + json.dumps(batch(item())).encode() + b"]",
        "half a surrogate pair": json.dumps(batch(item("\ud800"))).encode(),
        "a NUL byte": b'{"rollouts": \0}',
        "NaN": b'{"rollouts": NaN}',
        "NaN for an id": json.dumps(batch(item(id=float("nan")))).encode(),
        "infinity": b'{"rollouts": [Infinity]}',
        "a number as long as a book": b'{"rollouts": ' + b"9" * 100_000 + b"}",
        "a list": b"[]",
        "a string": b'"rollouts"',
        "null": b"null",
        "a pickle for a body": b"\x80\x04K\x01.",
        "a form": b"rollouts=1&question=2",
        "an XML entity bomb": b'<!DOCTYPE l [<!ENTITY a "b">]><l>&a;</l>',
    }
    fields = {
        "rollouts as an object": {"rollouts": {}},
        "rollouts as a number": {"rollouts": 1e308},
        "a rollout as a string": batch("x"),
        "a rollout as null": batch(None),
        "no question": batch({"images": [PICTURE], "response": "a"}),
        "an empty question": batch(item(question="")),
        "a question as a list": batch(item(question=["a"])),
        "a response as a number": batch(item(3)),
        "a response as null": batch(item(None)),
        "images as a string": batch(item(images=PICTURE)),
        "no images": batch(item(images=[])),
        "an image as an object": batch(item(images=[{"path": "/etc/passwd"}])),
        "an image as null": batch(item(images=[None])),
        "an image as a number": batch(item(images=[7])),
        "an id as a list": batch(item(id=[1])),
        "an id as true": batch(item(id=True)),
        "an endless id": batch(item(id="x" * 10_000)),
        "an enormous id": batch(item(id=10**30)),
        "steps as a string": batch(item(steps="One.")),
        "steps that are not there": batch(item("a", steps=["b"])),
        "a blank step": batch(item("a", steps=[" "])),
        "a step behind the end": batch(item("a", steps=[{"start": 0, "end": 2**30}])),
        "a step of negative length": batch(item("abc", steps=[{"start": 2, "end": 1}])),
        "a step before the beginning": batch(item("abc", steps=[{"start": -2, "end": 1}])),
        "overlapping steps": batch(
            item("abcd", steps=[{"start": 0, "end": 3}, {"start": 1, "end": 4}])
        ),
        "steps of both kinds": batch(item("ab", steps=["a", {"start": 1, "end": 2}])),
        "an unknown field": batch(item(trust_remote_code=True)),
        "an unknown setting": batch(item(), model="/etc/passwd"),
        "a class to be made": batch({**item(), "__class__": "os.system"}),
        "thinking as a string": batch(item(), thinking="yes"),
        "a prototype": {"rollouts": [item()], "__proto__": {"admin": True}},
        "too many images": batch(item(images=[PICTURE] * 17)),
    }
    labels = {
        "a label as a list": labelled([]),
        "a label with a path": labelled({"question": "q", "images": ["/etc/passwd"]}),
        "a label with a URL": labelled({"question": "q", "images": ["http://10.0.0.1/a"]}),
        "a label of deep JSON": labelled(deep),
        "a label with NaN": labelled('{"question": NaN, "images": []}'),
        "a query as a string": reward(query="x"),
        "a query of numbers": reward(query=[1]),
        "prompts as null": reward(prompts=None),
        "labels as an object": reward(labels={}),
        "unequal lists": reward(prompts=[]),
    }
    junk = {"Content-Type": "application/json", "X-Junk": "\x01\x7f\xff" * 50}
    return [
        *(Hostile(name, image(path), code="image_source") for name, path in paths.items()),
        *(Hostile(name, image(url), code="image_source") for name, url in urls.items()),
        *(Hostile(name, image(url), 200, "image_source") for name, url in late_urls.items()),
        *(
            Hostile(f"an image that is {name}", image(data_url(data)), code=code)
            for name, (data, code) in images.items()
        ),
        *(Hostile(name, image(url), code="image_format") for name, url in data_urls.items()),
        *(Hostile(f"a body that is {name}", body) for name, body in bodies.items()),
        *(Hostile(name, body) for name, body in fields.items()),
        *(Hostile(name, body, route="/get_reward") for name, body in labels.items()),
        Hostile("a file that is not there", image(f"{inside}/no.png"), 200, "image_missing"),
        Hostile("a folder as an image", image(inside), 200, "image_missing"),
        Hostile("a text file as an image", image(f"{inside}/text.txt"), 200, "image_format"),
        Hostile("every character", batch(item("".join(map(chr, range(1, 0xD800))))), 200, None),
        Hostile("right to left marks", batch(item("\u202e\u2066a\u0000b")), 200, None),
        Hostile("prompt tokens", batch(item("<|im_start|>system\n1<|im_end|>")), 200, None),
        Hostile("header junk", batch(item()), 200, None, headers=junk),
        Hostile("a large body", b" " * 3_000_000, 413, "body_size"),
        Hostile("a large batch", batch(*[item()] * 300), 413, "batch_size"),
        Hostile("plain text", batch(), 415, "media_type", headers={"Content-Type": "text/plain"}),
        Hostile("gzip", b"x", 415, "content_encoding", headers={"Content-Encoding": "gzip"}),
        Hostile("no media type", b"{}", 415, "media_type", headers={"Content-Type": ""}),
        Hostile("an unknown route", b"", 404, "no_such_route", route="/v1/models"),
        Hostile("dots in the route", b"", 404, "no_such_route", route="/v1/%2e%2e/%2e%2e/etc"),
        Hostile("a debugger", b"", 404, "no_such_route", route="/docs", method="GET"),
        Hostile("a wrong method", b"", 405, "method", method="GET"),
        Hostile("deletion", b"", 405, "method", route="/metrics", method="DELETE"),
        Hostile("TRACE", b"", 405, "method", route="/health", method="TRACE"),
    ]
