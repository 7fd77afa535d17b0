"""The wire's frame format."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.files import FileReply
from sandbox.inside import requests, wire
from sandbox.inside.requests import LIST, READ, FileRequest, Request
from sandbox.inside.wire import FILE_ENDINGS, Decoder, FileStatus, FloodError, GarbageError, Outcome
from sandbox.limits import Limits
from sandbox.reply import Images, Reply

_FRAMES = st.lists(st.tuples(st.sampled_from(b"rfoegvxlmd.n="), st.binary(max_size=wire.FRAME_BYTES)), max_size=6)


@given(_FRAMES, st.integers(1, 5_000))
def test_frames_survive_however_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(wire.frame(kind, content) for kind, content in frames)
    decoder = Decoder(len(data), len(frames))
    received = []
    for start in range(0, len(data), step):
        received += decoder.feed(data[start : start + step])
    assert received == frames


@given(st.text(max_size=6_000))
def test_texts_survive(text: str) -> None:
    frames = list(wire.text_frames(wire.STDOUT, text))
    assert all(len(frame) <= wire.PIPE_BUF for frame in frames)
    received = Decoder(1 << 20, 1 << 10).feed(b"".join(frames))
    assert "".join(content.decode() for _, content in received) == text.encode("utf-8", "replace").decode()


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


@given(st.builds(FileStatus, st.integers(0, 2**32 - 1), st.sampled_from(FILE_ENDINGS), st.integers(0, 2**64 - 1)))
def test_file_statuses_survive(status: FileStatus) -> None:
    assert FileStatus.unpack(status.pack()) == status


@given(st.lists(st.binary(max_size=3 * wire.FRAME_BYTES), max_size=3))
def test_files_survive(contents: list[bytes]) -> None:
    limits = Limits(file_bytes=1 << 20)
    for data in contents:
        reply = FileReply(READ, limits)
        for frame in [*wire.data_frames(data), wire.frame(wire.DONE, FileStatus(7, "ok", len(data)).pack())]:
            reply.feed(frame[0], frame[3:], 7)
        assert (reply.ending, bytes(reply.data), reply.error("a")) == ("result", data, None)
    reply = FileReply(LIST, limits)
    for number, data in enumerate(contents):
        reply.feed(wire.ENTRY, wire.entry(f"é{number}".encode(), len(data))[3:], 7)
    reply.feed(wire.DONE, FileStatus(7, "ok", len(contents)).pack(), 7)
    assert reply.infos() == tuple((f"é{number}", len(data)) for number, data in enumerate(contents))


@given(st.lists(st.tuples(st.sampled_from(b"dn="), st.binary(max_size=30)), max_size=8), st.sampled_from([READ, LIST]))
def test_nonsense_about_files_is_garbage_or_bounded(frames: list[tuple[int, bytes]], operation: int) -> None:
    reply = FileReply(operation, Limits(file_bytes=40, files=2))
    with contextlib.suppress(GarbageError):
        for kind, data in frames:
            reply.feed(kind, data, 0)
    assert len(reply.data) <= 40 and len(reply.sizes) <= 2
    reply.error("a")


@given(st.lists(st.tuples(st.sampled_from(b"md."), st.binary(max_size=30)), max_size=8))
def test_nonsense_about_images_is_garbage(frames: list[tuple[int, bytes]]) -> None:
    reply = Reply(100, Images(2, 40))
    with contextlib.suppress(GarbageError):
        for kind, data in frames:
            reply.feed(kind, data, 0)
    assert reply.images is not None and reply.images.images == []


@given(st.binary(max_size=400))
def test_nonsense_is_garbage_or_frames(data: bytes) -> None:
    try:
        for kind, content in Decoder(1 << 10, 1 << 10).feed(data):
            assert len(content) <= wire.FRAME_BYTES and 0 <= kind < 256
    except GarbageError:
        pass
    for read in (Outcome.unpack, FileStatus.unpack, wire.read_gap, wire.read_image, wire.read_entry):
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
    decoder.allow(10_000)
    assert len(decoder.feed(b"".join(wire.data_frames(bytes(10_000))))) == 3
    with pytest.raises(FloodError):
        decoder.feed(b"".join(wire.data_frames(bytes(10_000))))
    decoder.allow()
    with pytest.raises(GarbageError):
        decoder.feed(b"o\xff\xff")


@pytest.mark.parametrize("sizes", [(0, 0), (10, 20), (wire.PIPE_BUF, 1), (100_000, 0), (5, 300_000)])
def test_requests_survive(sizes: tuple[int, int]) -> None:
    code, stdin = (os.urandom(size) for size in sizes)
    reading, writing = os.pipe()
    file = FileRequest(3, LIST, stdin, code)
    sent = [Request(1, 2, None, False, code, stdin), Request(2, 3, 0, True, stdin, code, True)]

    def send() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.writelines([requests.settings_frame({"a": "é"}), *map(requests.request_frame, sent)])
            pipe.write(requests.file_request_frame(file))

    sender = threading.Thread(target=send)
    sender.start()
    assert requests.read_settings(reading) == {"a": "é"}
    assert [requests.read_request(reading) for _ in range(3)] == [*sent, file]
    with pytest.raises(EOFError):
        requests.read_request(reading)
    sender.join()
    os.close(reading)
