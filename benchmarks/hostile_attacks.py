# ruff: noqa: E501 - an attack is easier to read on few lines
"""Attacks that try to stall or starve the host and the machine: their code, and the amount they may get.

Each attack stops as soon as it has shown a weakness, and uses little of the machine's resources.
"""

from __future__ import annotations

from benchmarks.hostile_wire import LIBC, OUTPUT, WIRE, Attack

_HELD = "time.sleep(1.5)\n"  # long enough to be measured

KERNEL_MEMORY = (
    Attack(
        "POSIX ACLs",
        (
            LIBC
            + "e = [(1, 7, 2**32 - 1)] + [(2, 7, os.getuid())] * 8000 + [(4, 7, 2**32 - 1), (16, 7, 2**32 - 1), (32, 7, 2**32 - 1)]\nacl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *x) for x in e)\nfor n in range(600):\n    os.mkdir(f'/tmp/{n}')\n    for which in ('access', 'default'): os.setxattr(f'/tmp/{n}', f'system.posix_acl_{which}', acl)\n"
            + _HELD,
        ),
    ),
    Attack(
        "user attributes",
        (
            LIBC
            + "for n in range(1500):\n    os.mkdir(f'/tmp/{n}')\n    for m in range(2): os.setxattr(f'/tmp/{n}', f'user.{m}', bytes(60_000))\n"
            + _HELD,
        ),
    ),
    Attack(
        "buffers of TCP connections",
        (
            LIBC
            + "import socket\nkeep = []\nserver = socket.create_server(('127.0.0.1', 0), backlog=512)\nfor n in range(12):\n    c = socket.socket(); c.setsockopt(1, 7, 1 << 30); c.connect(server.getsockname()); c.setblocking(False); keep.append((c, server.accept()))\n    try:\n        while c.send(bytes(1 << 20)): pass\n    except BlockingIOError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "buffers of IPv6 and UDP",
        (
            LIBC
            + "import socket\nkeep = []\nfor family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n    for n in range(16):\n        s = socket.socket(family, socket.SOCK_DGRAM); s.setsockopt(1, 8, 1 << 30); s.bind((host, 0)); s.setblocking(False); keep.append(s)\n        try:\n            for _ in range(400): s.sendto(bytes(60_000), s.getsockname())\n        except OSError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "buffers of socket pairs, in four processes",
        (
            LIBC
            + "import socket\nfor _ in range(4):\n    if os.fork() == 0:\n        keep = []\n        try:\n            for _ in range(12):\n                pair = socket.socketpair(); keep.append(pair)\n                for s in pair:\n                    s.setsockopt(1, 7, 1 << 30); s.setblocking(False)\n                    try:\n                        while s.send(bytes(30_000)): pass\n                    except BlockingIOError: pass\n        except OSError: pass\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "pipes of a megabyte",
        (
            LIBC
            + "import fcntl\nkeep = []\nfor n in range(110):\n    r, w = os.pipe(); keep.append((r, w)); os.set_blocking(w, False)\n    try: fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError: pass\n    try:\n        while os.write(w, bytes(65_536)): pass\n    except BlockingIOError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "page tables of ten processes",
        (
            LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nlibc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int\nf = os.open('/usr/bin/env', os.O_RDONLY)\nfor _ in range(10):\n    if os.fork() == 0:\n        for n in range(1500):\n            p = libc.mmap(None, ctypes.c_size_t(2 << 20), 1, 2, f, 0)\n            if p in (None, 2**64 - 1): break\n            ctypes.string_at(p, 1)\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "mappings of twelve processes",
        (
            LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nf = os.open('/usr/bin/env', os.O_RDONLY)\nfor _ in range(12):\n    if os.fork() == 0:\n        for n in range(60_000):\n            if libc.mmap(None, ctypes.c_size_t(4096), 1 + n % 2 * 4, 2, f, 0) in (None, 2**64 - 1): break\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "queues of messages (SysV)",
        (
            LIBC
            + "for n in range(3000):\n    q = libc.msgget(0, 0o1600)\n    if q < 0: break\n    buffer = struct.pack('<q', 1) + bytes(8000)\n    while libc.msgsnd(q, buffer, 8000, 0o4000) == 0: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "semaphores (SysV)",
        (LIBC + "for n in range(60):\n    if libc.semget(0, 32_000, 0o1600) < 0: break\n" + _HELD,),
    ),
    Attack(
        "locks on files",
        (
            LIBC
            + "import fcntl\nkeep = []\ntry:\n    for n in range(150):\n        f = open(f'/tmp/{n}', 'w'); keep.append(f)\n        for m in range(2000): fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2 * m)\nexcept OSError: pass\n"
            + _HELD,
        ),
    ),
    Attack(
        "names that are not there", (LIBC + "for n in range(200_000): os.path.exists(f'/usr/share/{n}')\n" + _HELD,)
    ),
    Attack(
        "compiled socket filters",
        (
            LIBC
            + "import socket\ncode = b''.join(struct.pack('<HBBI', 0, 0, 0, 0) for _ in range(4000)) + struct.pack('<HBBI', 6, 0, 0, 65535)\nbuffer = ctypes.create_string_buffer(code)\ntaken = 0\nfor _ in range(30):\n    s = socket.socket(); globals()[f's{_}'] = s\n    try: s.setsockopt(1, 26, struct.pack('<HxxxxxxQ', 4001, ctypes.addressof(buffer))); taken += 1\n    except OSError: pass\nprint('taken', taken)\n"
            + _HELD,
        ),
        most=0,
    ),
    Attack(
        "sockets without end in ten processes",
        (
            LIBC
            + "import socket\nfor _ in range(10):\n    if os.fork() == 0:\n        keep = []\n        try:\n            while True: keep.append(socket.socket(socket.AF_INET6))\n        except OSError: pass\n        time.sleep(9)\n"
            + _HELD,
        ),
    ),
    Attack(
        "pollers that watch pollers",
        (
            LIBC
            + "import select\nkeep = [select.epoll() for _ in range(120)]\nfor a in keep:\n    for b in keep:\n        try: a.register(b)\n        except (OSError, ValueError): pass\n"
            + _HELD,
        ),
    ),
)
"""Attacks on memory of Linux itself."""

MEMORY = (
    Attack(
        "a mapping that grows down",
        (
            LIBC
            + "libc.mmap.restype = ctypes.c_void_p\ntaken = 0\nfor n in range(10):\n    p = libc.mmap(None, ctypes.c_size_t(64 << 20), 3, 0x122, -1, 0)\n    if p and p != 2**64 - 1: ctypes.memset(ctypes.c_void_p(p), 1, 64 << 20); taken += 64\n"
            + _HELD
            + "print('taken', taken)",
        ),
        most=480,
    ),
    Attack(
        "a mapping written through /proc",
        (
            LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nf = os.open('/tmp/f', os.O_RDWR | os.O_CREAT); os.truncate(f, 8 << 20)\nmem = open('/proc/self/mem', 'r+b', 0)\ntaken = 0\nfor n in range(80):\n    p = libc.mmap(None, ctypes.c_size_t(8 << 20), 1, 2, f, 0)\n    if p in (None, 2**64 - 1): break\n    mem.seek(p); mem.write(bytes(8 << 20)); taken += 8\n"
            + _HELD
            + "print('taken', taken)",
        ),
        most=480,
    ),
    Attack(
        "children that cannot be looked at",
        (
            LIBC
            + "for _ in range(8):\n    if os.fork() == 0:\n        libc.prctl(4, 0, 0, 0, 0)\n        x = bytearray(b'1') * (80 << 20)\n        time.sleep(9)\ntime.sleep(2.5)\nprint('taken', 640)",
        ),
        most=480,
    ),
    Attack(
        "children that live for milliseconds",
        (
            LIBC
            + "def hold():\n    end = time.monotonic() + 2.5\n    x = bytearray(b'1') * (80 << 20)\n    while time.monotonic() < end:\n        if os.fork(): os._exit(0)\nfor _ in range(8):\n    if os.fork() == 0: hold(); os._exit(0)\ntime.sleep(2.6)\nprint('taken', 640)",
        ),
        most=480,
    ),
    Attack(
        "shared pages of many children",
        (
            LIBC
            + "x = bytearray(b'1') * (120 << 20)\nfor _ in range(40):\n    if os.fork() == 0: time.sleep(9)\ntime.sleep(2)",
        ),
    ),
    Attack(
        "the stack of many threads",
        (
            LIBC
            + "import threading\nthreading.stack_size(16 << 20)\ndef f(n=0):\n    if n < 700: f(n + 1)\n    else: time.sleep(9)\nfor _ in range(40): threading.Thread(target=f, daemon=True).start()\n"
            + _HELD,
        ),
    ),
)
"""Attacks that try to exceed memory limits (in MB), or that make measuring memory slow."""

QUOTAS = (
    Attack(
        "AIO contexts",
        (
            LIBC
            + "import platform\nnumber = dict(x86_64=206, aarch64=0)[platform.machine()]\ntaken = 0\nfor _ in range(500):\n    c = ctypes.c_ulong()\n    if libc.syscall(number, 1, ctypes.byref(c)) == 0: taken += 1\nprint('taken', taken)",
        ),
        most=0,
    ),
    Attack(
        "pseudo-terminals",
        (
            LIBC
            + "taken = 0\ntry:\n    for _ in range(120): os.openpty(); taken += 1\nexcept OSError: pass\nprint('taken', taken)",
        ),
        most=16,
    ),
    Attack(
        "inotify instances",
        (LIBC + "taken = sum(libc.inotify_init() >= 0 for _ in range(20))\nprint('taken', taken)",),
        most=0,
    ),
    Attack(
        "queued signals",
        (
            LIBC
            + "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [40])\ntaken = 0\nwhile taken < 20_000 and libc.sigqueue(os.getpid(), 40, None) == 0: taken += 1\nprint('taken', taken)",
        ),
        most=4096,
    ),
    Attack(
        "timers",
        (
            LIBC
            + "class E(ctypes.Structure): _fields_ = [('v', ctypes.c_long), ('s', ctypes.c_int), ('n', ctypes.c_int), ('p', ctypes.c_int * 12)]\nevent, t, taken = E(0, 0, 1), ctypes.c_void_p(), 0\nwhile taken < 20_000 and libc.timer_create(0, ctypes.byref(event), ctypes.byref(t)) == 0: taken += 1\nprint('taken', taken)",
        ),
        most=4096,
    ),
    Attack(
        "POSIX message queues",
        (
            LIBC
            + "taken = 0\nfor n in range(200):\n    if ctypes.CDLL(None).mq_open(f'/q{n}'.encode(), 0o102, 0o600, None) >= 0: taken += 1\nprint('taken', taken)",
        ),
        most=16,
    ),
)
"""Attacks on quotas of the machine or of the user."""

TIME = (
    Attack(
        "busy processes",
        (LIBC + "for _ in range(45):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass",),
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
            LIBC
            + "libc.mmap.restype = ctypes.c_void_p\nfor n in range(20_000): libc.mmap(None, ctypes.c_size_t(4096), 1 + n % 2 * 2, 0x22, -1, 0)\nfor _ in range(40):\n    if os.fork() == 0: time.sleep(9)\ntime.sleep(9)",
        ),
    ),
    Attack(
        "memory that is slow to go",
        (
            LIBC
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
"""Attacks on CPU time, and on the time to kill and remove a session."""

NOTHING = Attack("(nothing: the measure itself)", ("import time\ntime.sleep(2)",))
"""The cost of a harmless session, for comparison."""

ATTACKS = (NOTHING, *WIRE, *OUTPUT, *KERNEL_MEMORY, *MEMORY, *QUOTAS, *TIME)
