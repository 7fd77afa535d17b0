# ruff: noqa: E501 - an attack is easier to read on few lines
"""The class ``Attack``, and the attacks on the wire between host and kernel and through printed output.

Attacks on the wire search for it among the open descriptors. ``$chars`` in code stands for slightly less than the limits'
`output_chars`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.soak_acts import ENDS

LIBC = "import ctypes, os, struct, time\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_WIRE = (
    ENDS
    + """
import select, struct, time
def endless(*datas):
    poll = select.poll()
    for fd, _ in ends():
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLOUT)
    while True:
        for data in datas:
            for fd, _ in poll.poll(100):
                try: os.write(fd, data)
                except OSError: pass
def send_text(text, kind='o'):
    data = text.encode()
    for fd, is_socket in ends():
        if not is_socket:
            os.set_blocking(fd, True)
            try:
                for start in range(0, len(data), 4000): os.write(fd, frame(kind, data[start:start + 4000]))
            except OSError: pass
def result(ending=0, flags=0, serial=1):  # by default of the first cell
    pour(frame('.', struct.pack('<IBBiQ', serial, ending, flags, 0, 0)))
    time.sleep(9)
"""
)


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, which runs in its own session.

    Attributes:
        name: a unique name.
        cells: code, run one after the other.
        timeout: seconds for each cell.
        idle: seconds that the session stays open after the last cell.
        most: maximum N of the line "taken N" that the code prints; None if it takes no shared resource.
        graded: whether it also runs with the limits of the code grader, which allow very long outputs.
    """

    name: str
    cells: tuple[str, ...]
    timeout: float = 3.0
    idle: float = 0.0
    most: int | None = None
    graded: bool = False


def _wire(name: str, code: str, *more: str, idle: float = 0.0) -> Attack:
    return Attack(name, (_WIRE + code, *more), idle=idle, graded=True)


def _printed(name: str, code: str) -> Attack:
    return Attack(name, (code,), graded=True)


WIRE = (
    _wire("garbage without end", "import random\nendless(*(random.Random(n).randbytes(60_000) for n in range(20)))"),
    _wire("zeros without end", "endless(bytes(60_000))"),
    _wire("single bytes without end", "endless(b'\\0', b'o', b'{', b'\\xff')"),
    _wire("lines of JSON", "endless(b'{\"a\":[' + b'[],' * 20_000 + b'0]}\\n')"),
    _wire(
        "lengths of gigabytes",
        "endless(*(struct.pack(f, n) for f in ('<I', '>I', '<Q') for n in (2**31 - 1, 2**32 - 1)))",
    ),
    _wire("half a frame, and silence", "pour(struct.pack('<BH', ord('o'), 4000) + b'half')\ntime.sleep(9)"),
    _wire("empty frames", "endless(*(frame(kind) * 1000 for kind in 'oelvx'))"),
    _wire("frames of one byte", "endless(*(frame(kind, b'x') * 1000 for kind in 'oelvx'))"),
    _wire("frames of one byte, one write for each", "endless(*(frame(kind, b'x') for kind in 'oelvx'))"),
    _wire("largest frames", "endless(*(frame(kind, b'x' * 4093) for kind in 'oelvx'))"),
    _wire("largest frames of three-byte characters", "endless(frame('o', '\u2028'.encode() * 1364))"),
    _wire("largest frames that are no text", "endless(frame('o', b'\\xff' * 4093))"),
    _wire(
        "frames of every kind",
        "endless(*(frame(chr(kind), bytes(n)) for kind in range(256) for n in (0, 8, 16, 18, 100)))",
    ),
    _wire("gaps", "endless(*(frame('g', struct.pack('<QQ', n, n)) * 100 for n in (0, 1, 2**60, 2**64 - 1)))"),
    _wire(
        "results of every number",
        "endless(*(frame('.', struct.pack('<IBBiQ', n, 0, 0, 0, 0)) * 50 for n in range(100)))",
    ),
    _wire(
        "a result before its time",
        "pour(frame('.', struct.pack('<IBBiQ', 1, 0, 0, 0, 0)))\npour(frame('.', bytes(18)))\ntime.sleep(9)",
        "1",
    ),
    _wire("largest frames, a byte at a time", "endless(*(bytes([b]) for b in frame('o', b'x' * 4093)))"),
    _wire(
        "largest frames, a byte at a time, by ten children",
        "for _ in range(10):\n    if os.fork() == 0: break\nendless(*(bytes([b]) for b in frame('o', b'x' * 4093)))",
    ),
    _wire("a value of the bound, with its result", "send_text('\x1b[1m' * ($chars // 4), 'v')\nresult(0, 1)"),
    _wire("an error of the bound, with its result", "send_text('\x1b]' * ($chars // 2), 'x')\nresult(1, 2)"),
    _wire("late text of the bound, with its result", "send_text('\x1b]' * ($chars // 2), 'l')\nresult()"),
    _wire(
        "backspaces of half a megabyte, with their result",
        "for kind in 'oelvx': send_text('ab\\b' * 32_000, kind)\nresult(1, 3)",
    ),
    _wire(
        "rows of half a megabyte, with their result",
        "for kind in 'oelvx': send_text('\\n\x1b[A\\r' * 19_000, kind)\nresult(1, 3)",
    ),
    _wire(
        "text that is no text of the bound, with its result",
        "for _ in range($chars // 1000): pour(frame('o', b'\\xff\\x1b' * 500))\nresult()",
    ),
    _wire(
        "a gap, then text of the bound",
        "pour(frame('g', struct.pack('<QQ', 2**63, 0)))\nsend_text('\u2028\x1b]' * ($chars // 3))\nresult()",
    ),
    _wire("text of the bound, forged", "send_text('\\x1b]0;x' * ($chars // 5))"),
    _wire(
        "text of the bound, forged, in frames of one byte",
        "for _ in range(min($chars, 300_000) // 500): pour(frame('o', b'\\b') * 500)",
    ),
    _wire(
        "packets of one byte",
        "import fcntl\nfor fd, _ in ends():\n    try: fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)\n    except OSError: pass\nendless(*(bytes([b]) for b in frame('o', b'x' * 4093)))",
    ),
    _wire(
        "pipes made small, and output",
        "import fcntl\nfor fd, _ in ends():\n    try: fcntl.fcntl(fd, 1031, 4096)\n    except OSError: pass\nprint('x' * $chars)",
    ),
    _wire(
        "pipes made large, and output",
        "import fcntl\nfor fd, _ in ends():\n    try: fcntl.fcntl(fd, 1031, 1 << 20)\n    except OSError: pass\nendless(frame('o', b'x' * 4093))",
    ),
    _wire(
        "signals for what the host does with its ends",
        "import fcntl\nfor fd, _ in ends():\n    try: fcntl.fcntl(fd, 8, os.getpid()); fcntl.fcntl(fd, fcntl.F_SETFL, 0o20000)\n    except OSError: pass\nwhile True: print('x' * 100)",
    ),
    _wire(
        "requests that are never read",
        "import threading\ndef steal():\n    while True:\n        for fd, _ in ends():\n            try: os.set_blocking(fd, False); os.read(fd, 1 << 16)\n            except OSError: pass\n        time.sleep(0.001)\nthreading.Thread(target=steal, daemon=True).start()",
        "1",
        "'" + "x" * 300_000 + "'",
    ),
    _wire(
        "own pipes opened again",
        "for fd, _ in ends():\n    for way in (os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY | os.O_NONBLOCK):\n        try: os.write(os.open(f'/proc/self/fd/{fd}', way), bytes(100))\n        except OSError: pass\ntime.sleep(9)",
    ),
    _wire("ends held by children", "for _ in range(20):\n    if os.fork() == 0: time.sleep(99)\nos._exit(0)"),
    _wire(
        "ends held by a stopped child",
        "import signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\nendless(b'x')",
    ),
    _wire(
        "twenty children that write",
        "for _ in range(20):\n    if os.fork() == 0: endless(frame('o', b'x'))\nendless(frame('o', b'x'))",
    ),
    _wire(
        "pages lent to a pipe",
        LIBC
        + "page = ctypes.create_string_buffer(1 << 16)\nvector = (ctypes.c_void_p * 2)(ctypes.addressof(page), 1 << 16)\nwhile True:\n    for fd, _ in ends(): libc.vmsplice(fd, vector, 1, 2)",
    ),
    _wire(
        "a thread that writes while no cell runs",
        "import threading\nthreading.Thread(target=endless, args=(frame('l', b'x'), frame('o', b'x' * 4000)), daemon=True).start()",
        idle=2.0,
    ),
    _wire(
        "a thread that prints while no cell runs",
        "import threading\ndef late():\n    while True: print('late' * 100)\nthreading.Thread(target=late, daemon=True).start()",
        "1",
        idle=2.0,
    ),
    _wire(
        "descriptors whose closing blocks",
        """
import socket
held, server = [], socket.create_server(('127.0.0.1', 0), backlog=64)
for n in range(20):
    c = socket.create_connection(server.getsockname()); peer, _ = server.accept()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 2)); c.setblocking(False)
    try:
        while c.send(bytes(65536)): pass
    except BlockingIOError: pass
    held.append((c, peer))
for fd, is_socket in ends():
    if is_socket:
        try: io = socket.socket(fileno=os.dup(fd))
        except OSError: continue
        for c, _ in held[:8]:
            try: socket.send_fds(io, [b'x'], [c.fileno()])
            except OSError: break
            c.close()
""",
    ),
    _wire(
        "descriptors without end",
        "import socket\na, b = socket.socketpair()\nwhile True:\n    for fd, is_socket in ends():\n        if is_socket:\n            try: socket.send_fds(socket.socket(fileno=os.dup(fd)), [b'x'], [a.fileno()] * 200)\n            except OSError: time.sleep(0.01)\n    time.sleep(0)",
    ),
)
"""Attacks on the wire between the host and a kernel."""

OUTPUT = (
    _printed("colours", "print('\\x1b[31m' * ($chars // 5))"),
    _printed("commands without an end", "print('\\x1b]' * ($chars // 2))"),
    _printed("sequences without an end", "print(('\\x1b[' + '1;' * 1000) * ($chars // 2002))"),
    _printed("backspaces", "print('ab\\b' * ($chars // 3))"),
    _printed("carriage returns", "print('a\\r' * ($chars // 2))"),
    _printed("a long line written over", "print(('x' * 1000 + '\\r') * ($chars // 1001))"),
    _printed("cursor up", "print('a\\n\\x1b[1A' * ($chars // 6))"),
    _printed("cursor up over many lines", "print('\\n' * ($chars // 2) + '\\x1b[99999A\\x1b[K\\n' * ($chars // 26))"),
    _printed("erased lines", "print('x\\x1b[2K' * ($chars // 5))"),
    _printed("a value of sequences", "'\\x1b[31m' * ($chars // 10)"),
    _printed("an error of sequences", "raise ValueError('\\x1b[31m\\x1b]' * ($chars // 16))"),
    _printed("surrogates and line separators", "print('\\ud800\\u2028\\U0001f600' * ($chars // 3))"),
    _printed("text without end", "while True: print('x' * 1000)"),
    _printed("single characters, flushed", "import sys\nwhile True: sys.stdout.write('x'); sys.stdout.flush()"),
    _printed("sequences without end", "while True: print('\\x1b[1A\\x1b[2K\\r\\b')"),
    _printed("bytes past Python", "import os\nwhile True: os.write(1, b'\\x1b[' * 30_000)"),
    _printed(
        "children that print",
        "import subprocess\nfor _ in range(9): subprocess.Popen(['yes', '\\x1b[1A'])\nimport time; time.sleep(9)",
    ),
    _printed("warnings without end", "import warnings\nn = 0\nwhile True: n += 1; warnings.warn(str(n))"),
)
"""Attacks through output that the host has to read and clean."""
