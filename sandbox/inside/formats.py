"""Types of images that a kernel may send, and a check that does not decode them. Used on both sides."""

from __future__ import annotations

import struct

MIMES = ("image/png", "image/jpeg")
"""Types of images; their index is sent on the wire."""
PNG, JPEG = range(2)

MOST_PIXELS = 32 << 20
"""Maximum size of an image: a viewer needs four bytes for each pixel, however small the file is."""

_PNG_BEGIN = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # with the header of the first chunk; PNG specification, 5
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_SIZE = struct.Struct(">II")

# ITU-T T.81, B.1: begin and end of an image, and the frame headers, which all have the size in the same place.
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA  # pixels follow, although there was no frame header
_JPEG_SEGMENT = struct.Struct(">BBH")  # 0xFF, type, length of what follows including these two bytes
_JPEG_SIZE = struct.Struct(">xHH")
_MOST_SEGMENTS = 128


def is_image(kind: int, data: bytes) -> bool:
    """Whether data starts and ends as an image of a type (an index into `MIMES`), with at most `MOST_PIXELS`.

    Nothing is decoded: this takes microseconds for any data.
    """
    size = _png_size(data) if kind == PNG else _jpeg_size(data)
    return size is not None and 0 < size[0] * size[1] <= MOST_PIXELS


def _png_size(data: bytes) -> tuple[int, int] | None:
    if not (data.startswith(_PNG_BEGIN) and data.endswith(_PNG_END) and len(data) > 45):
        return None
    width, height = _PNG_SIZE.unpack_from(data, len(_PNG_BEGIN))
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    if not (data.startswith(_JPEG_BEGIN) and data.endswith(_JPEG_END)):
        return None
    position = 2
    for _ in range(_MOST_SEGMENTS):
        if position + 9 > len(data):
            return None
        mark, kind, length = _JPEG_SEGMENT.unpack_from(data, position)
        if mark != 0xFF or kind == _JPEG_SCAN or length < 2:
            return None
        if kind in _JPEG_FRAMES:
            height, width = _JPEG_SIZE.unpack_from(data, position + _JPEG_SEGMENT.size)
            return width, height
        position += 2 + length
    return None
