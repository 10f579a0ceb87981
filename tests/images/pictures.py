"""Small pictures, and files that only claim to be pictures."""

import base64
import io
import random
import struct
import zlib

from PIL import Image

from vrprm_reward.images import PixelLimits

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
