"""The little protocol code of our own, against libzmq and jupyter_client; and against nonsense."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from sandbox.inside import zmtp
from sandbox.inside.server import Server
from sandbox.inside.wire import GarbageError, Wire

_KEY = "secret"


class _Shell:
    """Enough of a shell for a server, without IPython."""

    execution_count = 1
    kernel: Any = None

    def __init__(self) -> None:
        self.output = _Output()

    def open_output(self, settings: dict[str, Any]) -> _Output:
        return self.output

    def run(self, code: str, cell: int, stdin: str, seed: int | None) -> dict[str, Any]:
        self.output.send({"name": "stdout", "text": f"ran {code}"})
        return {"status": "ok", "value": "42"}


class _Output:
    send: Any = None

    def begin(self) -> None: ...

    def finish(self) -> None: ...

    def take_late(self) -> str:
        return ""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A kernel's server, in a thread of its own, at the sockets shell and iopub of a folder."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # which is for main threads
    listeners = []
    for name in ("shell", "iopub"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / name))
            listener.listen(1)
            listeners.append(listener.dup().detach())

    def serve() -> None:
        server = Server(_Shell(), {"key": _KEY}, listeners)  # type: ignore[arg-type]
        server.connect()
        server.serve()
        server.requests.close()
        server.iopub.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield tmp_path
    thread.join()


def test_a_stock_client_can_talk_to_the_kernel(server: Path) -> None:
    session = Session(key=_KEY.encode())
    with zmq.Context() as context, context.socket(zmq.DEALER) as shell, context.socket(zmq.SUB) as iopub:
        shell.connect(f"ipc://{server}/shell")
        iopub.subscribe(b"")
        iopub.connect(f"ipc://{server}/iopub")

        def hear(channel: Any) -> Any:
            _, frames = session.feed_identities(channel.recv_multipart())
            return session.deserialize(frames)

        assert hear(iopub)["msg_type"] == "iopub_welcome"
        session.send(shell, "kernel_info_request")
        assert hear(shell)["content"]["protocol_version"] == "5.4"
        sent: Any = session.send(shell, "execute_request", {"code": "é" * 300})
        reply = hear(shell)
        assert reply["msg_type"] == "execute_reply" and reply["content"]["status"] == "ok"
        assert reply["parent_header"]["msg_id"] == sent["header"]["msg_id"]
        heard = [hear(iopub) for _ in range(7)]
        kinds = [message["msg_type"] for message in heard]
        assert kinds == ["status", "status", "status", "execute_input", "stream", "execute_result", "status"]
        assert heard[4]["content"]["text"] == "ran " + "é" * 300
        session.send(shell, "shutdown_request")
        assert hear(shell)["msg_type"] == "shutdown_reply"


@given(st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=5), max_size=5), st.integers(1, 50))
def test_messages_survive_however_they_are_cut(messages: list[list[bytes]], piece: int) -> None:
    data = zmtp.opening("DEALER") + b"".join(map(zmtp.encode, messages))
    decoder = zmtp.Decoder(10_000)
    heard = []
    for start in range(0, len(data), piece):
        heard += decoder.feed(data[start : start + piece])
    assert heard == messages


@given(st.binary(max_size=300))
def test_nonsense_is_garbage_or_nothing(data: bytes) -> None:
    for opening in (b"", zmtp.opening("PUB")):
        decoder = zmtp.Decoder(1_000)
        try:
            messages = decoder.feed(opening + data)
        except GarbageError:
            continue
        for frames in messages:
            with pytest.raises(GarbageError):
                Wire(b"key", "host").read(frames)


def test_bounds() -> None:
    for data in (
        b"\x02" + (1 << 40).to_bytes(8, "big"),
        b"\x01\xff" + bytes(255) + b"\x01\xff" + bytes(255),
        b"\x01\x00" * 17,
    ):
        decoder = zmtp.Decoder(300)
        decoder.feed(zmtp.opening("PUB"))
        with pytest.raises(GarbageError):
            decoder.feed(data)


def test_signatures_are_checked() -> None:
    _, frames = Wire(b"key", "one").message("status", {"a": 1})
    assert Wire(b"key", "other").read(frames)["content"] == {"a": 1}
    with pytest.raises(GarbageError, match="not signed"):
        Wire(b"another", "other").read(frames)
