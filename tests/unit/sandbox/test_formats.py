"""The check of images."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.inside.formats import JPEG, MOST_PIXELS, PNG, is_image

image = pytest.importorskip("PIL.Image")


def made(kind: int, width: int = 3, height: int = 2, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.new("RGB", (width, height)).save(buffer, ("PNG", "JPEG")[kind], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [PNG, JPEG])
def test_images_are_valid_for_their_own_type_only(kind: int) -> None:
    data = made(kind)
    assert is_image(kind, data) and not is_image(1 - kind, data)
    assert not is_image(kind, data[:-1]) and not is_image(kind, data[1:]) and not is_image(kind, b"")


def test_progressive_images_and_large_metadata() -> None:
    assert is_image(JPEG, made(JPEG, progressive=True, comment=b"c" * 60_000, icc_profile=b"i" * 200_000))
    assert is_image(PNG, made(PNG, 300, 200))


def with_size(kind: int, width: int, height: int) -> bytes:
    """An image whose header has this size."""
    data = bytearray(made(kind))
    if kind == PNG:
        struct.pack_into(">II", data, 16, width, height)
    else:
        frame = data.index(b"\xff\xc0")
        struct.pack_into(">HH", data, frame + 5, height, width)
    return bytes(data)


@pytest.mark.parametrize("kind", [PNG, JPEG])
@pytest.mark.parametrize(
    ("width", "height", "allowed"),
    [(1, 1, True), (4_096, 8_192, True), (8_193, 4_096, False), (0, 5, False), (5, 0, False), (65_535, 65_535, False)],
)
def test_sizes_are_bounded(kind: int, width: int, height: int, allowed: bool) -> None:
    assert (0 < width * height <= MOST_PIXELS) is allowed
    assert is_image(kind, with_size(kind, width, height)) is allowed


@given(st.sampled_from([PNG, JPEG]), st.binary(max_size=400), st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_are_accepted_or_refused(kind: int, data: bytes, before: bytes, after: bytes) -> None:
    is_image(kind, data)
    is_image(PNG, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + before + b"\0\0\0\0IEND\xaeB`\x82")
    assert not is_image(JPEG, b"\xff\xd8\xff" + b"\xff\xd9")
    is_image(JPEG, b"\xff\xd8\xff" + before + after + b"\xff\xd9")


def test_endless_segments_are_not_walked_through() -> None:
    """A million of them would take a second."""
    data = b"\xff\xd8" + b"\xff\xfe\0\x02" * 1_000_000 + made(JPEG)[2:]
    assert not is_image(JPEG, data)
