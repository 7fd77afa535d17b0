# ruff: noqa: E501 - an attack is easier to read on few lines
"""Attacks that try to stall or to starve the host and the machine: code, and how much of something it may get.

Each stops at what shows the fault: it takes little of what belongs to the machine. Those that write on the kernel's wire
look for it among the open descriptors. ``$chars`` stands for a little less than the limits' `output_chars`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.soak_acts import ENDS

_LIBC = "import ctypes, os, struct, time\nlibc = ctypes.CDLL(None, use_errno=True)\n"
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
def whole(text, kind='o'):
    data = text.encode()
    for fd, is_socket in ends():
        if not is_socket:
            os.set_blocking(fd, True)
            try:
                for start in range(0, len(data), 4000): os.write(fd, frame(kind, data[start:start + 4000]))
            except OSError: pass
def result(ending=0, flags=0, serial=1):  # as of the first cell, if not said otherwise
    pour(frame('.', struct.pack('<IBBiQ', serial, ending, flags, 0, 0)))
    time.sleep(9)
"""
)
_HELD = "time.sleep(1.5)\n"  # so that a watch may look at it


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, in a session of its own.

    Attributes:
        name: of it, unique.
        cells: code, run one after the other.
        timeout: seconds for each.
        idle: seconds after the last cell in which the session stays open and nothing runs.
        most: of what the cell prints as "taken N", if it takes something that is not only its own.
        graded: whether it is tried with the limits of the code grader, too, which allow very long outputs.
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
    _wire("a value of the bound, with its result", "whole('\x1b[1m' * ($chars // 4), 'v')\nresult(0, 1)"),
    _wire("an error of the bound, with its result", "whole('\x1b]' * ($chars // 2), 'x')\nresult(1, 2)"),
    _wire("late text of the bound, with its result", "whole('\x1b]' * ($chars // 2), 'l')\nresult()"),
    _wire(
        "backspaces of half a megabyte, with their result",
        "for kind in 'oelvx': whole('ab\\b' * 32_000, kind)\nresult(1, 3)",
    ),
    _wire(
        "rows of half a megabyte, with their result",
        "for kind in 'oelvx': whole('\\n\x1b[A\\r' * 19_000, kind)\nresult(1, 3)",
    ),
    _wire(
        "text that is no text of the bound, with its result",
        "for _ in range($chars // 1000): pour(frame('o', b'\\xff\\x1b' * 500))\nresult()",
    ),
    _wire(
        "a gap, then text of the bound",
        "pour(frame('g', struct.pack('<QQ', 2**63, 0)))\nwhole('\u2028\x1b]' * ($chars // 3))\nresult()",
    ),
    _wire("text of the bound, forged", "whole('\\x1b]0;x' * ($chars // 5))"),
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
        _LIBC
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
"""On the wire between the host and a kernel."""

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
"""What the host has to read and to clean."""

KERNEL_MEMORY = (
    Attack(
        "POSIX ACLs",
        (
            _LIBC
            + "e = [(1, 7, 2**32 - 1)] + [(2, 7, os.getuid())] * 8000 + [(4, 7, 2**32 - 1), (16, 7, 2**32 - 1), (32, 7, 2**32 - 1)]\nacl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *x) for x in e)\nfor n in range(600):\n    os.mkdir(f'/tmp/{n}')\n    for which in ('access', 'default'): os.setxattr(f'/tmp/{n}', f'system.posix_acl_{which}', acl)\n"
            + _HELD,
        ),
    ),
    Attack(
        "user attributes",
        (
            _LIBC
            + "for n in range(1500):\n    os.mkdir(f'/tmp/{n}')\n    for m in range(2): os.setxattr(f'/tmp/{n}', f'user.{m}', bytes(60_000))\n"
            + _HELD,
        ),
    ),
    Attack(
        "buffers of TCP connections",
        (
            _LIBC
            + "import socket\nkeep = []\nserver = socket.create_server(('127.0.0.1', 0), backlog=512)\nfor n in range(12):\n    c = socket.socket(); c.setsockopt(1, 7, 1 << 30); c.connect(server.getsockname()); c.setblocking(False); keep.append((c, server.accept()))\n    try:\n        while c.send(bytes(1 << 20)): pass\n    except BlockingIOError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "buffers of IPv6 and UDP",
        (
            _LIBC
            + "import socket\nkeep = []\nfor family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n    for n in range(16):\n        s = socket.socket(family, socket.SOCK_DGRAM); s.setsockopt(1, 8, 1 << 30); s.bind((host, 0)); s.setblocking(False); keep.append(s)\n        try:\n            for _ in range(400): s.sendto(bytes(60_000), s.getsockname())\n        except OSError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "buffers of socket pairs, in four processes",
        (
            _LIBC
            + "import socket\nfor _ in range(4):\n    if os.fork() == 0:\n        keep = []\n        try:\n            for _ in range(12):\n                pair = socket.socketpair(); keep.append(pair)\n                for s in pair:\n                    s.setsockopt(1, 7, 1 << 30); s.setblocking(False)\n                    try:\n                        while s.send(bytes(30_000)): pass\n                    except BlockingIOError: pass\n        except OSError: pass\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "pipes of a megabyte",
        (
            _LIBC
            + "import fcntl\nkeep = []\nfor n in range(110):\n    r, w = os.pipe(); keep.append((r, w)); os.set_blocking(w, False)\n    try: fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError: pass\n    try:\n        while os.write(w, bytes(65_536)): pass\n    except BlockingIOError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "page tables of ten processes",
        (
            _LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nlibc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int\nf = os.open('/usr/bin/env', os.O_RDONLY)\nfor _ in range(10):\n    if os.fork() == 0:\n        for n in range(1500):\n            p = libc.mmap(None, ctypes.c_size_t(2 << 20), 1, 2, f, 0)\n            if p in (None, 2**64 - 1): break\n            ctypes.string_at(p, 1)\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "mappings of twelve processes",
        (
            _LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nf = os.open('/usr/bin/env', os.O_RDONLY)\nfor _ in range(12):\n    if os.fork() == 0:\n        for n in range(60_000):\n            if libc.mmap(None, ctypes.c_size_t(4096), 1 + n % 2 * 4, 2, f, 0) in (None, 2**64 - 1): break\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "queues of messages (SysV)",
        (
            _LIBC
            + "for n in range(3000):\n    q = libc.msgget(0, 0o1600)\n    if q < 0: break\n    buffer = struct.pack('<q', 1) + bytes(8000)\n    while libc.msgsnd(q, buffer, 8000, 0o4000) == 0: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "semaphores (SysV)",
        (_LIBC + "for n in range(60):\n    if libc.semget(0, 32_000, 0o1600) < 0: break\n" + _HELD,),
    ),
    Attack(
        "locks on files",
        (
            _LIBC
            + "import fcntl\nkeep = []\ntry:\n    for n in range(150):\n        f = open(f'/tmp/{n}', 'w'); keep.append(f)\n        for m in range(2000): fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2 * m)\nexcept OSError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "names that are not there", (_LIBC + "for n in range(200_000): os.path.exists(f'/usr/share/{n}')\n" + _HELD,)
    ),
    Attack(
        "compiled socket filters",
        (
            _LIBC
            + "import socket\ncode = b''.join(struct.pack('<HBBI', 0, 0, 0, 0) for _ in range(4000)) + struct.pack('<HBBI', 6, 0, 0, 65535)\nbuffer = ctypes.create_string_buffer(code)\ntaken = 0\nfor _ in range(30):\n    s = socket.socket(); globals()[f's{_}'] = s\n    try: s.setsockopt(1, 26, struct.pack('<HxxxxxxQ', 4001, ctypes.addressof(buffer))); taken += 1\n    except OSError: pass\nprint('taken', taken)\n"
            + _HELD,
        ),
        most=0,
    ),
    Attack(
        "sockets without end in ten processes",
        (
            _LIBC
            + "import socket\nfor _ in range(10):\n    if os.fork() == 0:\n        keep = []\n        try:\n            while True: keep.append(socket.socket(socket.AF_INET6))\n        except OSError: pass\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "pollers that watch pollers",
        (
            _LIBC
            + "import select\nkeep = [select.epoll() for _ in range(120)]\nfor a in keep:\n    for b in keep:\n        try: a.register(b)\n        except (OSError, ValueError): pass\n"
            + _HELD,
        ),
    ),
)
"""Memory that belongs to Linux."""

MEMORY = (
    Attack(
        "a mapping that grows down",
        (
            _LIBC
            + "libc.mmap.restype = ctypes.c_void_p\ntaken = 0\nfor n in range(10):\n    p = libc.mmap(None, ctypes.c_size_t(64 << 20), 3, 0x122, -1, 0)\n    if p and p != 2**64 - 1: ctypes.memset(ctypes.c_void_p(p), 1, 64 << 20); taken += 64\n"
            + _HELD
            + "print('taken', taken)",
        ),
        most=480,
    ),
    Attack(
        "a mapping written through /proc",
        (
            _LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nf = os.open('/tmp/f', os.O_RDWR | os.O_CREAT); os.truncate(f, 8 << 20)\nmem = open('/proc/self/mem', 'r+b', 0)\ntaken = 0\nfor n in range(80):\n    p = libc.mmap(None, ctypes.c_size_t(8 << 20), 1, 2, f, 0)\n    if p in (None, 2**64 - 1): break\n    mem.seek(p); mem.write(bytes(8 << 20)); taken += 8\n"
            + _HELD
            + "print('taken', taken)",
        ),
        most=480,
    ),
    Attack(
        "children that cannot be looked at",
        (
            _LIBC
            + "for _ in range(8):\n    if os.fork() == 0:\n        libc.prctl(4, 0, 0, 0, 0)\n        x = bytearray(b'1') * (80 << 20)\n        time.sleep(9)\ntime.sleep(2.5)\nprint('taken', 640)",
        ),
        most=480,
    ),
    Attack(
        "children that live for milliseconds",
        (
            _LIBC
            + "def hold():\n    end = time.monotonic() + 2.5\n    x = bytearray(b'1') * (80 << 20)\n    while time.monotonic() < end:\n        if os.fork(): os._exit(0)\nfor _ in range(8):\n    if os.fork() == 0: hold(); os._exit(0)\ntime.sleep(2.6)\nprint('taken', 640)",
        ),
        most=480,
    ),
    Attack(
        "shared pages of many children",
        (
            _LIBC
            + "x = bytearray(b'1') * (120 << 20)\nfor _ in range(40):\n    if os.fork() == 0: time.sleep(9)\ntime.sleep(2)",
        ),
    ),
    Attack(
        "the stack of many threads",
        (
            _LIBC
            + "import threading\nthreading.stack_size(16 << 20)\ndef f(n=0):\n    if n < 700: f(n + 1)\n    else: time.sleep(9)\nfor _ in range(40): threading.Thread(target=f, daemon=True).start()\n"
            + _HELD,
        ),
    ),
)
"""Memory that no limit is to let through, in MB; and what is slow to be counted."""

QUOTAS = (
    Attack(
        "AIO contexts",
        (
            _LIBC
            + "import platform\nnumber = dict(x86_64=206, aarch64=0)[platform.machine()]\ntaken = 0\nfor _ in range(500):\n    c = ctypes.c_ulong()\n    if libc.syscall(number, 1, ctypes.byref(c)) == 0: taken += 1\nprint('taken', taken)",
        ),
        most=0,
    ),
    Attack(
        "pseudo-terminals",
        (
            _LIBC
            + "taken = 0\ntry:\n    for _ in range(120): os.openpty(); taken += 1\nexcept OSError: pass\nprint('taken', taken)",
        ),
        most=16,
    ),
    Attack(
        "inotify instances",
        (_LIBC + "taken = sum(libc.inotify_init() >= 0 for _ in range(20))\nprint('taken', taken)",),
        most=0,
    ),
    Attack(
        "queued signals",
        (
            _LIBC
            + "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [40])\ntaken = 0\nwhile taken < 20_000 and libc.sigqueue(os.getpid(), 40, None) == 0: taken += 1\nprint('taken', taken)",
        ),
        most=4096,
    ),
    Attack(
        "timers",
        (
            _LIBC
            + "class E(ctypes.Structure): _fields_ = [('v', ctypes.c_long), ('s', ctypes.c_int), ('n', ctypes.c_int), ('p', ctypes.c_int * 12)]\nevent, t, taken = E(0, 0, 1), ctypes.c_void_p(), 0\nwhile taken < 20_000 and libc.timer_create(0, ctypes.byref(event), ctypes.byref(t)) == 0: taken += 1\nprint('taken', taken)",
        ),
        most=4096,
    ),
    Attack(
        "POSIX message queues",
        (
            _LIBC
            + "taken = 0\nfor n in range(200):\n    if ctypes.CDLL(None).mq_open(f'/q{n}'.encode(), 0o102, 0o600, None) >= 0: taken += 1\nprint('taken', taken)",
        ),
        most=16,
    ),
)
"""What belongs to the machine or to its user."""

TIME = (
    Attack(
        "busy processes",
        (_LIBC + "for _ in range(45):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass",),
    ),
    Attack(
        "busy threads",
        (
            "import threading\nthreading.stack_size(1 << 20)\ndef f():\n    while True: pass\nfor _ in range(40): threading.Thread(target=f).start()\nf()",
        ),
    ),
    Attack("a fork bomb", ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",)),
    Attack(
        "processes that come and go", ("import os\nwhile True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()",)
    ),
    Attack(
        "children with very many mappings",
        (
            _LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nfor n in range(20_000): libc.mmap(None, ctypes.c_size_t(4096), 1 + n % 2 * 2, 0x22, -1, 0)\nfor _ in range(40):\n    if os.fork() == 0: time.sleep(9)\ntime.sleep(9)",
        ),
    ),
    Attack(
        "memory that is slow to go",
        (
            _LIBC
            + "for _ in range(6):\n    if os.fork() == 0:\n        x = bytearray(b'1') * (50 << 20)\n        time.sleep(9)\nx = [object() for _ in range(1_000_000)]\nos._exit(0)",
        ),
    ),
    Attack(
        "folders within folders",
        ("import os\nfor n in range(5000):\n    try: os.mkdir('d'); os.chdir('d')\n    except OSError: break",),
    ),
    Attack(
        "many files",
        (
            "import os, tempfile\nfolder = tempfile.gettempdir()\ntry:\n    for n in range(30_000): open(f'{folder}/{n}', 'w').close()\nexcept OSError: pass",
        ),
    ),
    Attack(
        "folders of mode 0",
        (
            "import os\nfor n in range(500):\n    try: os.mkdir(f'{n}'); open(f'{n}/f', 'w').close(); os.chmod(f'{n}', 0)\n    except OSError: break\nos.chmod('.', 0)",
        ),
    ),
    Attack("thirty kernels that die", ("import os; os._exit(1)",) * 30),
    Attack("thirty kernels that crash", ("import ctypes; ctypes.string_at(0)",) * 30),
    Attack("kernels that fill their memory", ("x = [0]\nwhile True: x += x",) * 3),
    Attack(
        "a thousand interrupts swallowed",
        ("while True:\n    try:\n        while True: pass\n    except BaseException: pass",),
        timeout=1.0,
    ),
    Attack(
        "timers of microseconds",
        (
            "import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nwhile True: pass",
        ),
    ),
    Attack(
        "locks on files that all share",
        ("import fcntl, time\nf = open('/usr/bin/tac', 'rb')\nfcntl.flock(f, fcntl.LOCK_EX)\ntime.sleep(2)",),
    ),
    Attack("a huge number, uninterrupted", ("x = sum(range(10 ** 13))",), timeout=1.0),
)
"""Processor time, and what is slow to be ended and removed."""

NOTHING = Attack("(nothing: the measure itself)", ("import time\ntime.sleep(2)",))
"""What a session costs that does no harm: to be compared with."""

ATTACKS = (NOTHING, *WIRE, *OUTPUT, *KERNEL_MEMORY, *MEMORY, *QUOTAS, *TIME)
