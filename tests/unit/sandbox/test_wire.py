"""The form of what goes over the wire, by itself."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.inside import wire
from sandbox.inside.wire import Decoder, FloodError, GarbageError, Outcome, Request

_FRAMES = st.lists(st.tuples(st.sampled_from(b"rfoegvxl."), st.binary(max_size=wire.FRAME_BYTES)), max_size=6)


@given(_FRAMES, st.integers(1, 5_000))
def test_frames_survive_however_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(wire.frame(kind, content) for kind, content in frames)
    decoder = Decoder(len(data), len(frames))
    heard = []
    for start in range(0, len(data), step):
        heard += decoder.feed(data[start : start + step])
    assert heard == frames


@given(st.text(max_size=6_000))
def test_texts_survive(text: str) -> None:
    frames = list(wire.text_frames(wire.STDOUT, text))
    assert all(len(frame) <= wire.PIPE_BUF for frame in frames)
    heard = Decoder(1 << 20, 1 << 10).feed(b"".join(frames))
    assert "".join(content.decode() for _, content in heard) == text.encode("utf-8", "replace").decode()


@given(
    st.builds(
        Outcome,
        st.integers(0, 2**32 - 1),
        st.integers(0, len(wire.ENDINGS) - 1),
        *[st.booleans()] * 4,
        st.integers(-64, 255),
        st.integers(0, 2**64 - 1),
    )
)
def test_outcomes_survive(outcome: Outcome) -> None:
    assert Outcome.unpack(outcome.pack()) == outcome


@given(st.binary(max_size=400))
def test_nonsense_is_garbage_or_frames(data: bytes) -> None:
    try:
        for kind, content in Decoder(1 << 10, 1 << 10).feed(data):
            assert len(content) <= wire.FRAME_BYTES and 0 <= kind < 256
    except GarbageError:
        pass
    for read in (Outcome.unpack, wire.read_gap):
        with contextlib.suppress(GarbageError):
            read(data)


def test_bounds() -> None:
    with pytest.raises(FloodError):
        Decoder(100, 100).feed(bytes(101))
    decoder = Decoder(100, 3)
    decoder.feed(wire.frame(wire.STDOUT) * 3)
    with pytest.raises(FloodError):
        decoder.feed(wire.frame(wire.STDOUT))
    decoder.allow()
    assert len(decoder.feed(wire.frame(wire.STDOUT) * 3)) == 3
    with pytest.raises(GarbageError):
        decoder.feed(b"o\xff\xff")


@pytest.mark.parametrize("sizes", [(0, 0), (10, 20), (wire.PIPE_BUF, 1), (100_000, 0), (5, 300_000)])
def test_requests_survive(sizes: tuple[int, int]) -> None:
    code, stdin = (os.urandom(size) for size in sizes)
    reading, writing = os.pipe()
    sent = [Request(1, 2, None, False, code, stdin), Request(2, 3, 0, True, stdin, code)]

    def send() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.writelines([wire.settings_frame({"a": "é"}), *map(wire.request_frame, sent)])

    sender = threading.Thread(target=send)
    sender.start()
    assert wire.read_settings(reading) == {"a": "é"}
    assert [wire.read_request(reading) for _ in sent] == sent
    with pytest.raises(EOFError):
        wire.read_request(reading)
    sender.join()
    os.close(reading)
