# ruff: noqa: E501 - an act is easier to read on few lines
"""The hostile acts of the soak test, by kind. Names with a dollar sign are filled in by `sandbox.soak_cells`."""

from __future__ import annotations

ENDS = """
import os, stat, socket
def ends():
    found = []
    for fd in range(300):
        try: mode = os.fstat(fd).st_mode
        except OSError: continue
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode): found.append((fd, stat.S_ISSOCK(mode)))
    return found
def pour(data, times=1, kinds=(True, False)):
    for fd, is_socket in ends() * times:
        if is_socket not in kinds: continue
        try:
            os.set_blocking(fd, False)
            os.write(fd, data)
        except OSError: pass
        finally:
            try: os.set_blocking(fd, True)
            except OSError: pass
def frame(kind, data=b''):
    return kind.encode() + len(data).to_bytes(2, 'little') + data
"""
"""Finds the kernel's own pipes and sockets and writes to all of them; `frame` builds frames of `inside.wire`."""

_LIBC = "import ctypes, os, struct\nlibc = ctypes.CDLL(None, use_errno=True)\n"

MEMORY = (
    "x = []\nwhile True: x.append(bytearray($bytes))",
    "x = bytearray($big)",
    "x = [0]\nwhile True: x += x",
    "x = 'a' * (1 << 40)",
    "x = 10 ** 10 ** $few",
    "import numpy as np\nx = np.ones($big // 8)",
    "import mmap\nx = [mmap.mmap(-1, $bytes, 34) for _ in range($many)]\nfor m in x: m[:1] = b'1'",
    "import mmap\nx = mmap.mmap(-1, $big)\nx.write(bytes($bytes))",
    _LIBC + "libc.mmap.restype = ctypes.c_void_p\nfor n in range($few):\n"
    "    p = libc.mmap(None, ctypes.c_size_t(16 << 20), 3, 0x122, -1, 0)\n"
    "    if p and p != 2**64 - 1: ctypes.memset(ctypes.c_void_p(p), 1, 16 << 20)",
    "f = open('/proc/self/mem', 'r+b', 0)\nf.seek(id(f))\nf.write(bytes($few))",
    "import os\nm = os.memfd_create('m')\nos.write(m, bytes($bytes))\nos.ftruncate(m, $big)",
    "import collections\nd = collections.deque()\nwhile True: d.append({n: n for n in range(1000)})",
    _LIBC + "libc.prctl(4, 0, 0, 0, 0)\nx = bytearray(64 << 20)",
    "from multiprocessing import shared_memory\ns = shared_memory.SharedMemory(create=True, size=$bytes)",
)

FORKS = (
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "import os, time\nfor _ in range($some):\n    if os.fork() == 0: time.sleep($long)",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep($long)\n    os._exit(0)",
    "import os\nos.fork()",
    "import os\nos.fork()\nos.fork()\nprint('who?')",
    "import subprocess\nsubprocess.Popen(['sleep', '$long'])",
    "import subprocess\nsubprocess.run('yes | head -c $bytes', shell=True)",
    "import os\nfor _ in range($some):\n    if os.fork() == 0: os._exit($few)",
    "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        x = bytearray($bytes)\n        time.sleep($long)",
    "import os\nwhile True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
    "import multiprocessing as mp\nwith mp.get_context('fork').Pool(3) as p: print(p.map(abs, range($some)))",
    "import os\nif os.fork() == 0:\n    while True: os.kill(os.getppid(), 10)",
)

THREADS = (
    "import threading, time\nfor _ in range($some): threading.Thread(target=time.sleep, args=($long,)).start()",
    "import threading\ndef f():\n    while True: print('late', $few)\nthreading.Thread(target=f, daemon=True).start()",
    "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep($short), os._exit($few))).start()",
    "import _thread, threading\ndef f():\n    while True: _thread.interrupt_main()\nthreading.Thread(target=f).start()",
    "import threading\ndef f(): threading.Thread(target=f).start()\nf()",
    "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor($few).map(lambda n: n / 0, range($some))",
    "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()",
    "import asyncio, threading\nthreading.Thread(target=lambda: asyncio.run(asyncio.sleep($long))).start()",
    "import threading\nthreading.stack_size(256 << 20)\nthreading.Thread(target=print).start()",
)

SIGNALS = (
    "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "import os, signal\nfor s in range(1, 65):\n    try: signal.signal(s, lambda *_: None)\n    except (OSError, ValueError): pass",
    "import os\nos.kill(os.getpid(), $signal)",
    "import signal\nsignal.raise_signal($signal)",
    "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "import signal\nsignal.signal(signal.SIGALRM, lambda *_: 1 / 0)\nsignal.setitimer(signal.ITIMER_REAL, $short, 0.001)",
    "import signal\nsignal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)\nwhile True: pass",
    "import os\nfor p in (-1, 0, 1, os.getppid()):\n    try: os.kill(p, $signal)\n    except OSError: pass",
    _LIBC + "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [40])\n"
    "for _ in range(2_000): libc.sigqueue(os.getpid(), 40, None)",
    "import signal, os\nr, w = os.pipe()\nos.set_blocking(w, False)\nsignal.set_wakeup_fd(w)\nos.kill(os.getpid(), 10)",
    _LIBC + "t = ctypes.c_void_p()\nfor _ in range(500): libc.timer_create(0, None, ctypes.byref(t))",
)

DESCRIPTORS = (
    "import os\nos.closerange(0, 256)",
    "import os\nos.closerange(3, 256)\nprint('still here')",
    "import os\nfor fd in range($few): os.close(fd)",
    "keep = [open('/dev/null') for _ in range($some)]",
    "import os\nkeep = []\nwhile True: keep.append(os.open('/dev/zero', os.O_RDONLY))",
    "import os\nfor fd in range(3, 256):\n    try: os.dup2(0, fd)\n    except OSError: pass",
    "import os\nr, w = os.pipe()\nfor fd in (0, 1, 2): os.dup2(w, fd)\nprint('x' * $bytes)",
    "import os\nfor fd in range(256):\n    try: os.set_blocking(fd, False)\n    except OSError: pass\nprint('x' * $many)",
    "import os, fcntl\nfor fd in range(256):\n    for n in (4096, 1 << 20):\n"
    "        try: fcntl.fcntl(fd, 1031, n)\n        except OSError: pass",
    "import fcntl\nf = open('/usr/bin/env', 'rb')\nfcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "import os, fcntl\nfor fd in range(256):\n    try: fcntl.fcntl(fd, 8, os.getpid()); fcntl.fcntl(fd, 4, 0o22000)\n"
    "    except OSError: pass",
    "import os\nfor fd in os.listdir('/proc/self/fd'):\n    try: os.read(int(fd), $bytes)\n    except OSError: pass",
    "import os\nfor _ in range(40): os.openpty()",
    _LIBC + "c = ctypes.c_ulong()\nfor _ in range(20): c.value = 0; libc.syscall(206, 1, ctypes.byref(c))",
    _LIBC + "for _ in range(5): libc.inotify_init()",
    "import select\ne = [select.epoll() for _ in range($some)]\nfor a, b in zip(e, e[1:]): a.register(b)",
    "import os, sys\nsys.stdout.close()\nsys.stderr.close()\nsys.stdin.close()\nos.write(1, b'1')",
)

SOCKETS = (
    "import socket\na, b = socket.socketpair()\na.setblocking(False)\nwhile True: a.send(bytes(65536))",
    "import socket\ns = socket.create_server(('127.0.0.1', 0))\nfor _ in range(3):\n"
    "    c = socket.create_connection(s.getsockname()); c.setblocking(False); p = s.accept()\n"
    "    try:\n        while c.send(bytes(65536)): pass\n    except BlockingIOError: pass",
    "import socket\nfor family in range(46):\n    for kind in range(1, 6):\n"
    "        try: socket.socket(family, kind)\n        except OSError: pass",
    "import socket\nsocket.create_connection(('127.0.0.1', $some), 0.1)",
    "import socket\na, b = socket.socketpair()\nfor _ in range(50): socket.send_fds(a, [b'x'], [a.fileno(), b.fileno()])",
    ENDS + "a, b = socket.socketpair()\nfor fd, is_socket in ends():\n    if is_socket:\n"
    "        try: socket.send_fds(socket.socket(fileno=os.dup(fd)), [bytes($few)], [a.fileno()] * $few)\n"
    "        except OSError: pass",
    ENDS + "for fd, is_socket in ends():\n    if is_socket:\n"
    "        try: socket.socket(fileno=os.dup(fd)).shutdown(2)\n        except OSError: pass",
    "import socket\nkeep = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range($some)]",
    "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0' + $odd[:1])\ns.listen()",
    "import socket\nsocket.getaddrinfo('example.org', 80)",
)

FILES = (
    "import os\nfor _ in range(1_500): os.mkdir('d'); os.chdir('d')",
    "for n in range($many): open(f'/tmp/{n}', 'w').close()",
    "f = open('big', 'wb')\nwhile True: f.write(bytes($bytes))",
    "open('sparse', 'wb').truncate($big)",
    "import os\nos.makedirs('a/b/c')\nopen('a/b/f', 'w').write('x')\nos.chmod('a/b', 0)\nos.chmod('a', 0)",
    "import os\nos.chmod(os.getcwd(), 0)",
    "import os\nos.symlink('loop', 'loop')\nos.symlink('/', 'root')\nos.symlink('/etc/passwd', 'passwd')\nopen('loop')",
    "import os\nos.mkfifo('fifo')\nopen('fifo')",
    "import os\nopen(os.fsencode($odd).replace(b'/', b'').replace(b'\\0', b'') + b'\\xff', 'w').close()",
    "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.mkdir('gone')",
    "import os\nopen('f', 'w').close()\nfor n in range($many): os.link('f', f'l{n}')",
    _LIBC
    + "e = [(1, 7, 2**32 - 1)] + [(2, 7, os.getuid())] * 1000 + [(4, 7, 2**32 - 1), (16, 7, 2**32 - 1), (32, 7, 2**32 - 1)]\n"
    "acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *x) for x in e)\n"
    "for n in range(50): os.mkdir(f'/tmp/a{n}'); os.setxattr(f'/tmp/a{n}', 'system.posix_acl_access', acl)",
    "import os\nfor path in ('/', '/proc/self/root', '/usr', os.path.expanduser('~')):\n"
    "    for call in (lambda p: os.chmod(p, 0), os.rmdir, lambda p: open(p + '/x', 'w'), os.chroot):\n"
    "        try: call(path)\n        except OSError: pass",
    "import os\nos.environ['TMPDIR'] = '/nowhere'\nimport tempfile\ntempfile.tempdir = None\ntempfile.mkdtemp()",
)

FRAMES = (
    ENDS + "for kind in 'oelvxgrf.': pour(frame(kind, os.urandom($few)))",
    ENDS + "for kind in 'oelvx': pour(frame(kind, $odd.encode('utf-8', 'replace')[:4000]), $some)",
    ENDS + "while True: pour(frame('o', b'x'))",
    ENDS + "pour(frame('o', b'\\xff' * 4093), $some)\nos._exit($few)",
    ENDS + "for b in frame('o', b'x' * 4093): pour(bytes([b]))",
    ENDS + "for n in range($some): pour(frame('.', n.to_bytes(4, 'little') + bytes([$few % 5, 15]) + bytes(12)))",
    ENDS + "pour(frame('g', os.urandom(16)), 2)",
    ENDS + "import fcntl\nfor fd, _ in ends(): fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)\nprint('x' * $many)",
    ENDS + "pour(os.urandom($bytes))",
    ENDS + "pour(bytes($bytes))",
    ENDS + "pour(b'\\xff' * $bytes)",
    ENDS + "import random\nr = random.Random($seed)\nfor _ in range($some): pour(r.randbytes(r.randint(1, 40)))",
    ENDS
    + "import struct\nfor n in (0, 1, 65_536, 2**31 - 1, 2**31, 2**32 - 1): pour(struct.pack('<I', n)), pour(struct.pack('>I', n))",
    ENDS + "while True: pour(bytes([$few]))",
    ENDS + "while True: pour(b'\\n{}\\n')",
    ENDS + "pour(b'{\"a\":[' + b'[],' * $many + b'0]}')",
    ENDS + "import struct\npour(struct.pack('<I', 65_536) + b'half')\nos._exit($few)",
    ENDS + "for kind in range(256): pour(bytes([kind]) + (5).to_bytes(4, 'little') + b'hello')",
    ENDS + "for kind in range(256): pour((5).to_bytes(4, 'little') + bytes([kind]) + b'hell')",
    ENDS + "import time\nfor fd, _ in ends():\n    try: os.close(fd)\n    except OSError: pass\ntime.sleep($short)",
    "import gc\nfor o in gc.get_objects():\n    if type(o).__module__.endswith(('server', 'wire', 'fork', 'streams', 'text')):\n"
    "        for name in dir(o):\n            if name in ('send', 'run', 'write', 'flush', 'finish', 'begin', 'end'):\n"
    "                for a in ((), ('x' * $bytes,), (b'x' * 9,), ([b'x' * $bytes],), ('stdout', $odd)):\n"
    "                    try: getattr(o, name)(*a)\n                    except Exception: pass",
    "import gc\nfor o in gc.get_objects():\n    if type(o).__module__.endswith(('server', 'wire', 'fork', 'streams', 'text', 'shell')):\n"
    "        try: o.__dict__.clear()\n        except Exception: pass",
)

LIMITS = (
    "import resource\nresource.setrlimit($limit, (0, 0))",
    "import resource\nresource.setrlimit($limit, ($few, $few))",
    "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (32 << 20, 32 << 20))\nx = 'x' * $bytes",
    "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    "import resource\nfor p in range(1, 300):\n    try: resource.prlimit(p, $limit, (0, 0))\n    except OSError: pass",
    "import os\nos.nice(19)\nos.nice(-20)",
    "import os\nos.sched_setaffinity(0, {0})\nos.sched_setscheduler(0, 1, os.sched_param(1))",
    "import sys\nsys.setrecursionlimit(50)",
    "import sys\nsys.setswitchinterval(1e6)",
    "import gc\ngc.disable()\ngc.freeze()\ngc.set_threshold(1)",
    "import sys\nsys.set_int_max_str_digits(640)\nstr(10 ** $many)",
)

TRACEBACKS = (
    "import os\nos.environ.clear()",
    "import os\nos.environ = None",
    "import sys\nsys.prefix = sys.base_prefix = sys.path = None",
    "import linecache\nlinecache.getlines = linecache.checkcache = linecache.updatecache = None",
    "import traceback\ntraceback.TracebackException = traceback.extract_tb = traceback.format_exception = None",
    "import sys\nsys.excepthook = sys.exc_info = sys.displayhook = None",
    "import sys\nsys.modules['traceback'] = sys.modules['linecache'] = None",
    "import inspect, tokenize\ninspect.getsourcelines = tokenize.open = lambda *a: 1 / 0",
    "import re\nre.sub = re.compile = re.search = lambda *a, **k: None",
    "import sys\nsys.stderr = sys.__stderr__ = None",
    "ArithmeticError = ValueError",
)

EXCEPTIONS = (
    "class E(Exception):\n    def __str__(self): raise SystemError\n    __repr__ = __str__\nraise E",
    "class E(BaseException):\n    __class__ = property(lambda self: 1 / 0)\nraise E($odd)",
    "e = ValueError($odd)\ne.__cause__ = e.__context__ = e\nraise e",
    "e = ValueError('x' * $bytes)\ne.add_note($odd)\nraise e",
    "e = None\nfor _ in range($many):\n    n = ValueError()\n    n.__context__ = e\n    e = n\nraise e",
    "e = ValueError()\nfor _ in range(500): e = ExceptionGroup('g', [e])\nraise e",
    "raise KeyboardInterrupt",
    "raise GeneratorExit",
    "exec(compile('\\n' * $many + 'raise ValueError', 'x' * $many, 'exec'))",
    "class M(type):\n    def __getattribute__(c, n): raise RuntimeError(n)\n    __name__ = None\n"
    "class E(Exception, metaclass=M): pass\nraise E",
    "class R:\n    def __repr__(self): return repr(self)\nprint(R())",
    "class R:\n    def __repr__(self): return None\nprint(R())",
)

FLOODS = (
    "while True: print('x' * 1000)",
    "print($odd * $many)",
    "import sys\nwhile True: sys.stderr.write($odd)",
    "import os\nwhile True: os.write(1, b'x' * 65536)",
    "print('\\x1b[31m' * $many)",
    "print('\\r'.join(map(str, range($many))))",
    "print('\\x1b[1A\\x1b[2K' * $many)",
    "print('a\\b' * $many)",
    "print('\\x1b]0;' * $many)\nprint('visible')",
    "import os\nos.write(2, bytes(range(256)) * 200)",
    "'x' * $bytes",
    "list(range($many))",
    "import sys\nfor _ in range($many): sys.stdout.write('x'); sys.stdout.flush()",
    "import subprocess\nsubprocess.run(['yes'])",
    "import warnings\nfor n in range($many): warnings.warn(str(n))",
    "import logging\nfor n in range($many): logging.error(n)",
)

TIMEOUTS = (
    "while True: pass",
    "import time\ntime.sleep($long)",
    "sum(range(10 ** 13))",
    "import re\nre.match('(a|aa)+$$', 'a' * 60 + 'b')",
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "import select\nselect.select([], [], [])",
    "import signal\nsignal.pause()",
    "input()\ninput()",
    "import sympy\nsympy.factorint(2**401 - 1)",
    "import itertools\nmax(itertools.count())",
    "import asyncio\nasyncio.run(asyncio.sleep($long))",
    "def f():\n    try: yield\n    finally:\n        while True: pass\ng = f()\nnext(g)\ndel g",
)

EXITS = (
    "import os\nos._exit($few)",
    "import sys\nsys.exit($odd)",
    "raise SystemExit($few)",
    "quit()",
    "import os\nos.abort()",
    "import ctypes\nctypes.string_at(0)",
    "import ctypes\nctypes.memset(id(None), 0, 64)",
    "import os\nos.execv('/bin/true', ['true'])",
    "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
    "get_ipython().ask_exit()",
    "get_ipython().reset()",
    "import faulthandler\nfaulthandler._sigsegv()",
    "%reset -f",
    "1/0",
)

RECURSION = (
    "def f(): f()\nf()",
    "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
    "eval('(' * $many + ')' * $many)",
    "eval('+'.join(['1'] * $many))",
    "eval('not ' * $many + '1')",
    "import json\njson.loads('[' * $many)",
    "x = []\nfor _ in range($many): x = [x]\nprint(x)",
    "x = []\nfor _ in range($many): x = [x]\nx == x",
    "import copy\nx = []\nfor _ in range($many): x = [x]\ncopy.deepcopy(x)",
    "exec('if 1: pass\\n' + 'elif 1: pass\\n' * $many)",
    "class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\nA().x",
    "import ast\nast.literal_eval('-' * $many + '1')",
)

BUILTINS = (
    "import builtins\nbuiltins.print = builtins.open = builtins.len = builtins.str = None",
    "import builtins\nbuiltins.__import__ = lambda *a: 1 / 0",
    "import builtins\nbuiltins.__dict__.clear()",
    "import builtins\nbuiltins.Exception = builtins.BaseException = builtins.KeyboardInterrupt = int",
    "import builtins\nbuiltins.__build_class__ = builtins.compile = builtins.exec = None",
    "import sys\nsys.modules.clear()",
    "import sys\nsys.stdout = sys.stderr = sys.stdin = sys.__stdout__ = None",
    "import os, io, json, time, signal, struct\nfor m in (os, io, json, time, signal, struct):\n    m.__dict__.clear()",
    "get_ipython().__dict__.clear()",
    "get_ipython().run_cell = get_ipython().run_code = None",
    "get_ipython().kernel = None",
    "get_ipython().showtraceback = get_ipython()._showtraceback = lambda *a, **k: None",
    "get_ipython().InteractiveTB = None",
    "globals().clear()",
    "import types\ntypes.FunctionType = None\n__builtins__ = {}",
    "import os\nos.write = os.read = os.fstat = os.getpid = lambda *a: 0",
)

AT_EXIT = (
    "import atexit\natexit.register(lambda: print('bye'))",
    "import atexit\ndef f():\n    while True: pass\natexit.register(f)",
    "import atexit\natexit.register(lambda: 1 / 0)",
    "import atexit, os\natexit.register(os._exit, $few)",
    "import threading\nthreading._register_atexit(lambda: print('late'))",
    "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'gone')",
    "import atexit\nfor n in range($many): atexit.register(print, n)",
)

ACTS: dict[str, tuple[str, ...]] = {
    "memory": MEMORY,
    "forks": FORKS,
    "threads": THREADS,
    "signals": SIGNALS,
    "descriptors": DESCRIPTORS,
    "sockets": SOCKETS,
    "files": FILES,
    "frames": FRAMES,
    "limits": LIMITS,
    "tracebacks": TRACEBACKS,
    "exceptions": EXCEPTIONS,
    "floods": FLOODS,
    "timeouts": TIMEOUTS,
    "exits": EXITS,
    "recursion": RECURSION,
    "builtins": BUILTINS,
    "at exit": AT_EXIT,
}
"""Kinds, and the acts of each: bodies of functions."""
