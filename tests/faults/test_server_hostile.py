"""Invalid, endless and oversized requests: each is answered or closed, and costs no memory.

The server is a process of its own, spoken to by bare sockets. That it serves the next request is looked at after each
test; what it logs, at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.ports import free_port
from tests.support.scripted_server import LINGER_SECONDS, MAX_BODY
from tests.support.servers import serving
from tests.support.waiting import eventually

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

KEY = "key-of-a-client"
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/conversations", "/v1/containers")
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "What is 6*7?"}]}
ROOM = 64 << 20
"""Bytes by which the server's memory may grow: a few bodies of the largest size as Python objects."""


class Server:
    """The process, its address, its memory."""

    def __init__(self, port: int, process: int, log: Path) -> None:
        self.port, self.log = port, log
        self._process = psutil.Process(process)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(self._process.memory_info().rss)

    @property
    def connections(self) -> int:
        """Those that are open."""
        return sum(one.status == "ESTABLISHED" for one in self._process.net_connections())

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
        """A connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def sent(
        self, first: bytes = b"", more: Iterable[bytes] = (), *, every: float = 0.0, ends: bool = False
    ) -> bytes:
        """All that the server answers to these bytes until it closes the connection.

        Args:
            first, more: sent one after the other, unless it closes before.
            every: seconds between two of them.
            ends: whether the client closes its side then.
        """
        async with self.connected() as (reader, writer):
            sending = asyncio.create_task(_sent(writer, chain([first], more), every, ends))
            try:
                answer = bytearray()
                while data := await _read(reader):
                    answer += data
                return bytes(answer)
            finally:
                sending.cancel()

    async def posted(self, body: bytes, route: str = ROUTES[0], kind: str = "application/json") -> tuple[int, Any]:
        """The status and the object that a body is answered with."""
        return answered(await self.sent(head(route, len(body), kind) + body))


async def _sent(writer: asyncio.StreamWriter, pieces: Iterable[bytes], every: float, ends: bool) -> None:
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)
        if ends:
            writer.write_eof()
    except ConnectionError:
        pass


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except ConnectionError:
        return b""


def head(route: str, length: int | None, kind: str = "application/json", *more: str, method: str = "POST") -> bytes:
    """The head of a request, after whose answer the connection is closed."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = ["Host: 127.0.0.1", f"Authorization: Bearer {KEY}", f"Content-Type: {kind}", size, "Connection: close"]
    return "\r\n".join([f"{method} {route} HTTP/1.1", *lines, *more, "", ""]).encode()


def kept_open(request: bytes) -> bytes:
    """A request with a connection that the client keeps open."""
    return request.replace(b"Connection: close\r\n", b"")


def answered(answer: bytes) -> tuple[int, Any]:
    """The status of an answer and its object: of an error what is in ``error``."""
    first, _, body = answer.partition(b"\r\n\r\n")
    status = int(first.split()[1])
    if status >= 400 and b"application/json" in first:
        body = json.loads(body)["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert len(body["message"]) <= 300 and "\n" not in body["message"]
    return status, body


def statuses(answer: bytes) -> list[int]:
    """Those of all answers on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    keys, log = folder / "keys", folder / "log"
    keys.write_text(KEY)
    options = ("--api-key-file", keys, "--allowed-hosts", "127.0.0.1")
    with serving("tests.support.scripted_server", str(port), *options, port=port, log_file=log) as process:
        yield Server(port, process.pid, log)
        assert process.poll() is None
    assert "Traceback" not in log.read_text() and "failed" not in log.read_text()


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """The server; after each test it must still serve, with unchanged memory."""
    before = started.memory
    yield started
    request = urllib.request.Request(
        f"http://127.0.0.1:{started.port}/v1/chat/completions",
        json.dumps(CHAT).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["choices"][0]["message"]["content"] == "The answer is \\boxed{42}."
    assert started.memory < before + ROOM


def with_body(text: str) -> bytes:
    """A chat request whose question is this JSON."""
    return b'{"model": "scripted", "messages": [{"role": "user", "content": %s}]}' % text.encode()


BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "no UTF-8": b'{"model": "\xff"}',
    "UTF-16": '{"model": "scripted"}'.encode("utf-16"),
    "a NUL": b'{"model": "scripted"}\0',
    "nested lists": b"[" * 100_000,
    "nested lists, closed": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested within a request": with_body("[" * 200 + "]" * 200),
    "a number too large": with_body("1e400"),
    "a number of many digits": with_body("9" * 100_000),
    "a fraction of many digits": with_body("0." + "9" * 100_000),
    "an exponent of many digits": with_body("1e" + "9" * 100_000),
    "NaN": with_body("NaN"),
    "Infinity": with_body("-Infinity"),
    "half a surrogate pair": with_body('"\\ud800"'),
    "half a surrogate pair as a key": b'{"\\udc00": 1}',
    "a list": b"[]",
    "a text": b'"model"',
    "null": b"null",
    "true": b"true",
    "many values": b"[" + b"0," * 400_000 + b"0]",
    "many keys": b"{" + b",".join(b'"%d": 0' % number for number in range(80_000)) + b"}",
    "a long key": b'{"' + b"k" * 500_000 + b'": 1}',
    "a key of control characters": b'{"\\u0000\\u001b[31m\\r\\n": 1}',
    "an object's own names": b'{"__class__": 1, "__proto__": {}, "constructor": {}, "model_config": {}}',
}


@pytest.mark.parametrize("route", ROUTES)
async def test_bodies_that_are_no_requests(server: Server, route: str) -> None:
    for name, body in BODIES.items():
        status, error = await server.posted(body, route)
        assert status == 400, (name, error)


@pytest.mark.parametrize("route", ROUTES)
async def test_values_of_the_wrong_type(server: Server, route: str) -> None:
    values: tuple[Any, ...] = (
        None,
        True,
        0,
        -1,
        1.5,
        1 << 62,
        "",
        "x",
        "\0",
        [],
        [[]],
        [None],
        {},
        {"": None},
        {"id": {"id": []}},
    )
    names = ("model", "messages", "input", "prompt", "items", "name", "tools", "stream", "stop", "n", "start_agent")
    for name in names:
        for value in values:
            whole = {"model": "scripted", "messages": [], "input": [], "prompt": [], name: value}
            status, error = await server.posted(json.dumps(whole).encode(), route)
            assert 400 <= status < 500, (name, value, error)


async def test_of_a_key_that_comes_twice_the_last_counts(server: Server) -> None:
    body = json.dumps(CHAT).encode()
    status, error = await server.posted(body[:-1] + b', "model": "other"}')
    assert (status, error["param"]) == (404, "model")
    assert (await server.posted(b'{"model": "other", ' + body[1:]))[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "\x01"])
async def test_bodies_of_another_type(server: Server, kind: str) -> None:
    for route in ROUTES:
        status, _ = await server.posted(json.dumps(CHAT).encode(), route, kind)
        assert status == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "OPTIONS", "HEAD", "BREW"])
async def test_other_methods(server: Server, method: str) -> None:
    for route in (ROUTES[0], "/v1/nothing", "/health", "*", "http://127.0.0.1/v1/models"):
        answer = await server.sent(head(route, 0, method=method))
        assert statuses(answer)[0] < 500, answer


async def test_a_gigabyte_is_refused_before_it_comes(server: Server) -> None:
    status, error = answered(await server.sent(head(ROUTES[0], 1 << 30)))
    assert (status, error["code"]) == (413, "request_too_large")
    assert (await server.posted(with_body('"' + "x" * (MAX_BODY - 100) + '"')))[0] == 200, "the largest is taken"


@pytest.mark.parametrize("length", ["9" * 19, "9" * 5000, "-1", "1e9", "0x10", "", "5, 6", "٣"])
async def test_lengths_that_are_none(server: Server, length: str) -> None:
    lines = f"POST {ROUTES[0]} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}"
    status = statuses(await server.sent(f"{lines}\r\nConnection: close\r\n\r\n".encode(), ends=True))
    assert status in ([400], [413])


CHUNK = b"%x\r\n%s\r\n" % (1 << 16, b"x" * (1 << 16))
"""A piece of a body of unknown length."""


async def test_a_body_without_end_is_cut_at_the_limit(server: Server) -> None:
    before, endless = server.memory, kept_open(head(ROUTES[0], None))
    assert statuses(await server.sent(endless, repeat(CHUNK))) == [413]
    assert statuses(await server.sent(endless.replace(KEY.encode(), b"no-key"), repeat(CHUNK))) == [401]
    assert server.memory < before + ROOM


async def test_a_body_that_comes_byte_by_byte_has_a_time(server: Server) -> None:
    answers = await asyncio.gather(
        *(server.sent(head(route, 1000), repeat(b" "), every=0.2) for route in ROUTES),
        server.sent(head(ROUTES[0], None), repeat(b"1\r\n \r\n"), every=0.2),
        # These are answered before the body has come; what follows is not read for ever.
        server.sent(head("/v1/nothing", 1000), repeat(b" "), every=0.2),
        server.sent(head("/v1/models", 1000, method="GET"), repeat(b" "), every=0.2),
    )
    assert [statuses(answer) for answer in answers] == [[408]] * (len(ROUTES) + 1) + [[404], [200]]


async def test_after_a_late_body_the_connection_stays_usable(server: Server) -> None:
    async with server.connected() as (reader, writer):
        writer.write(kept_open(head("/v1/nothing", 10)))
        assert statuses(await reader.readuntil(b"}}")) == [404]
        writer.write(b"x" * 10)
        await asyncio.sleep(1.5 * LINGER_SECONDS)  # what might close it has passed
        writer.write(head("/v1/models", 0, method="GET"))
        assert statuses(await reader.read()) == [200]


async def test_a_head_that_comes_byte_by_byte_has_a_time(server: Server) -> None:
    request = head(ROUTES[0], 0)
    fields = (b"X-%d: 1\r\n" % number for number in count())
    after_one = kept_open(head(ROUTES[0], 0))
    answers = await asyncio.gather(
        server.sent(),  # nothing at all
        server.sent(b"", (bytes([byte]) for byte in request), every=0.1),
        server.sent(b"GET /v1/models HTTP/1.1\r\n", fields, every=0.1),
        server.sent(b"", repeat(b"\r\n"), every=0.1),
        server.sent(after_one + b"GET /v1/models HTTP/1.1\r\n", fields, every=0.1),
    )
    assert [statuses(answer) for answer in answers] == [[], [], [], [400], [400]]


async def test_many_that_are_slow_leave_the_others_served(server: Server) -> None:
    slow = [asyncio.create_task(server.sent(head(ROUTES[0], 1000), repeat(b" "), every=0.2)) for _ in range(100)]
    slow += [asyncio.create_task(server.sent(b"GET / HTTP/1.1\r\n")) for _ in range(100)]
    for _ in range(20):
        assert (await server.posted(json.dumps(CHAT).encode()))[0] == 200
    answers = await asyncio.gather(*slow)
    assert {tuple(statuses(answer)) for answer in answers} == {(408,), ()}
    await eventually(lambda: server.connections == 0)


async def test_requests_that_break_off(server: Server) -> None:
    whole = head(ROUTES[0], 1000) + json.dumps(CHAT).encode()
    for end in (0, 1, 10, whole.index(b"\r\n\r\n") + 2, whole.index(b"\r\n\r\n") + 4, len(whole)):
        answer = await server.sent(whole[:end], ends=True)
        assert set(statuses(answer)) <= {400}, end
    for _ in range(100):
        async with server.connected() as (_, writer):
            writer.write(whole)
    for _ in range(20):  # gone while the answer is made
        body = json.dumps(CHAT | {"stream": True}).encode()
        async with server.connected() as (_, writer):
            writer.write(head(ROUTES[0], len(body)) + body)


async def test_floods_of_header_fields(server: Server) -> None:
    many = [f"X-{number}: 1" for number in range(100_000)]
    assert statuses(await server.sent(head("/v1/models", 0, "", *many, method="GET"))) == [400]
    assert statuses(await server.sent(head("/v1/models", 0, "", "X: " + "x" * 10_000_000, method="GET"))) == [400]
    assert statuses(await server.sent(b"GET /" + b"x" * 10_000_000)) == [400]
    few = [f"X-{number}: 1" for number in range(1000)]
    assert statuses(await server.sent(head("/v1/models", 0, "", *few, method="GET"))) == [200]


@pytest.mark.parametrize(
    "line",
    [
        "Host: evil.example",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Content-Length: 7",
        "Content-Encoding: gzip",
        "Upgrade: websocket\r\nConnection: upgrade",
        "Expect: 200-ok",
        "X-Request-Id: " + "x" * 5000,
        "X-Request-Id: \x7f\x1b[31m",
        "Authorization: Basic eDp5",
        "Authorization: Bearer " + "k" * 50_000,
        "Cookie: " + "a=b; " * 5000,
        "Range: bytes=0-1",
        "X-Forwarded-For: 1.2.3.4",
        "X-HTTP-Method-Override: DELETE",
        " folded: line",
        "no colon",
        "a b: c",
        ": empty",
        "X: \x00",
    ],
)
async def test_header_fields_that_are_tricks(server: Server, line: str) -> None:
    body = json.dumps(CHAT).encode()
    for found in statuses(await server.sent(head(ROUTES[0], len(body), "application/json", line) + body, ends=True)):
        assert found < 500


async def test_requests_one_after_another_are_answered_in_order(server: Server) -> None:
    body = json.dumps(CHAT).encode()
    one = kept_open(head(ROUTES[0], len(body))) + body
    other = kept_open(head("/v1/nothing", 0, method="GET"))
    answer = await server.sent(one + other + one + head("/v1/models", 0, method="GET") + one)
    assert statuses(answer) == [200, 404, 200, 200]


async def test_a_flood_of_requests_on_one_connection_waits_in_the_socket(server: Server) -> None:
    body = json.dumps(CHAT).encode()
    one = kept_open(head(ROUTES[0], len(body))) + body
    before = server.memory
    async with server.connected() as (reader, writer):
        sending = asyncio.create_task(_sent(writer, (one * 100,) * 200, 0, False))  # whose answers are not read
        while not statuses(await reader.read(1 << 16)):
            pass
        assert server.memory < before + ROOM
        sending.cancel()


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics", "/v1/chat/completions"])
async def test_http_1_0(server: Server, path: str) -> None:
    stream = json.dumps(CHAT | {"stream": True}).encode()
    lines = f"Host: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json"
    posts = path == "/v1/chat/completions"
    request = (
        f"{'POST' if posts else 'GET'} {path} HTTP/1.0\r\n{lines}\r\nContent-Length: {len(stream) * posts}\r\n\r\n"
    )
    answer = await server.sent(request.encode() + stream * posts)
    assert statuses(answer) == [200]
    assert not posts or answer.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
async def test_what_is_no_http(server: Server, data: bytes) -> None:
    assert statuses(await server.sent(data, ends=True)) in ([], [400], [403], [403, 400])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../etc/passwd",
        "/v1/%2e%2e/%2e%2e/etc/passwd",
        "/v1//responses",
        "/v1/responses/%00",
        "/v1/responses/..%2f..%2fkeys",
        "/v1/responses/" + "x" * 10_000,
        "/v1/responses/%ff%fe",
        "/v1/responses/%0d%0aX-Injected:%201",
        "/v1/responses/%ED%A0%80",
        "/v1/containers/cntr_x/files/..%2f..%2fetc%2fpasswd/content",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/responses/resp_x?stream=true&include=%00",
        "/v1/conversations/x/items?limit=1e9&order=%00&after=%ff",
        "/v1/containers?limit=" + "9" * 5000,
    ],
)
async def test_paths_that_are_tricks(server: Server, path: str) -> None:
    answer = await server.sent(head(path, 0, method="GET"))
    status, _ = answered(answer)
    assert status in (400, 401, 404, 405)
    assert b"X-Injected" not in answer.partition(b"\r\n\r\n")[0] and b"root:" not in answer


async def test_connections_that_were_left_are_closed(server: Server) -> None:
    async with server.connected() as (reader, writer):
        writer.write(kept_open(head("/v1/models", 0, method="GET")))
        assert statuses(await reader.read()) == [200]  # up to the end of the connection
