"""The escape attempts of the self-test: each probe is a cell that tries to reach something outside its kernel."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.isolation import Tier


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt.

    Attributes:
        name: its goal.
        code: prints "escaped" if it succeeds; names in braces are filled in from the host.
        quick: whether it runs whenever a sandbox is opened.
        tiers: the tiers that defend against it.
    """

    name: str
    code: str
    quick: bool = True
    tiers: tuple[Tier, ...] = (1, 2, 3)


_ROOTED: tuple[Tier, ...] = (1, 2)

_CALL = (
    "import ctypes, os, struct\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "def call(*arguments):\n"
    "    done = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])\n"
    "    print(os.strerror(ctypes.get_errno()) if done < 0 else 'escaped')\n"
)
_MAP = (
    "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
    "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n"
    "failed = ctypes.c_void_p(-1).value\n"
)
# A filter of one instruction, which allows everything.
_FILTER = (
    "import ctypes, socket, struct\ncode = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000), 8)\n"
    "address = ctypes.addressof(code)\n"
)

PROBES = (
    Probe("read a file of the host", "open({file!r}).read()\nprint('escaped')"),
    Probe(
        "list the home directory",
        "import os\nfor path in {hidden!r}:\n"
        "    try:\n        os.listdir(path) if os.path.isdir(path) else open(path).close()\n"
        "        print('escaped')\n    except OSError as error: last = error\nlast",
    ),
    Probe(
        "read a secret of the environment",
        "import os, glob\nseen = repr(os.environ)\n"
        "for path in [*glob.glob('/proc/*/environ'), '/proc/{pid}/environ']:\n"
        "    try: seen += open(path).read()\n    except OSError: pass\n"
        "print('escaped' if {secret!r} in seen else 'not found')",
    ),
    Probe("connect to the host", "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nprint('escaped')"),
    Probe(
        "connect to an abstract socket",
        "import socket\nsocket.socket(socket.AF_UNIX).connect({abstract!r})\nprint('escaped')",
    ),
    Probe("connect to the internet", "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)\nprint('escaped')"),
    Probe("write to the system", "open('/usr/probe', 'w')\nprint('escaped')"),
    Probe("become root", "import os\nos.setuid(0)\nprint('escaped')"),
    Probe("signal the host", "import os\nos.kill({pid}, 0)\nprint('escaped')"),
    Probe(
        "signal anyone",
        "import os\nfound = 0\nfor pid in range(1, 5000):\n"
        "    try: os.kill(pid, 0); found += pid != os.getpid()\n    except OSError: pass\n"
        "print('escaped' if found else 'nobody there')",
    ),
    Probe(
        "trace a process",
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print('escaped' if libc.ptrace(16, {pid}, 0, 0) == 0 or libc.ptrace(0, 0, 0, 0) == 0 else 'refused')",
    ),
    Probe(
        "make a user namespace",
        "import ctypes\nprint('escaped' if ctypes.CDLL(None).unshare(0x10000000) == 0 else 'refused')",
    ),
    Probe(
        "mount a file system",
        "import ctypes\nfailed = ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None)\n"
        "print('refused' if failed else 'escaped')",
    ),
    Probe(
        "use the kernel's keyring",
        "import ctypes, platform\nnumber = dict(x86_64=250, aarch64=219)[platform.machine()]\n"
        "print('escaped' if ctypes.CDLL(None).syscall(number, 0, -3, 1, 0, 0) >= 0 else 'refused')",
    ),
    Probe(
        "talk to the machine's hypervisor (vsock)", "import socket\nsocket.socket(socket.AF_VSOCK)\nprint('escaped')"
    ),
    Probe("start a process", "import os\nif os.fork() == 0: os._exit(0)\nprint('escaped')", tiers=(3,)),
    Probe(
        "start processes without end",
        "import os, time\nfor n in range(300):\n    if os.fork() == 0:\n        time.sleep(60)\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "use memory without end",
        "x = []\nfor n in range(4096): x.append(bytearray(1 << 20))\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "use shared memory without end",
        "import mmap\nx = []\nfor n in range(64):\n    x.append(mmap.mmap(-1, 256 << 20))\n"
        "    x[-1].write(bytes(1 << 20))\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "fill the disk",
        "import tempfile, os\nfolder = tempfile.gettempdir()\nfor n in range(64):\n"
        "    with open(f'{{folder}}/{{n}}', 'wb') as f: f.write(bytes(8 << 20))\nprint('escaped')",
        quick=False,
        tiers=_ROOTED,
    ),
    Probe(
        "use up inodes",
        "import tempfile\nfolder = tempfile.gettempdir()\nfor n in range(100_000):\n"
        "    open(f'{{folder}}/{{n}}', 'w').close()\nprint('escaped')",
        quick=False,
        tiers=_ROOTED,
    ),
    Probe("take a file that is too large", "open('x', 'wb').truncate(1 << 40)\nprint('escaped')", quick=False),
    Probe(
        "keep an ACL (memory that nothing counts)",
        "import os, struct\nopen('f', 'w').close()\n"
        "entries = [(1, 7, -1), *[(2, 7, n) for n in range(64)], (4, 7, -1), (16, 7, -1), (32, 7, -1)]\n"
        "acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries)\n"
        "os.setxattr('f', 'system.posix_acl_access', acl)\nprint('escaped')",
        quick=False,
    ),
    Probe("keep an attribute of a file", "import os\nos.setxattr('.', 'user.x', b'x')\nprint('escaped')", quick=False),
    Probe("take a context for asynchronous I/O", _CALL + "call({io_setup}, 1, bytes(8))", quick=False),
    Probe("watch files", _CALL + "call({inotify_init1}, 0)", quick=False),
    Probe(
        "watch for changes in a folder",
        "import fcntl, os\nfcntl.fcntl(os.open('.', 0), fcntl.F_NOTIFY, 1)\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "make others wait for a file (lease)",
        "import fcntl\nopen('f', 'w').close()\nfcntl.fcntl(open('f'), fcntl.F_SETLEASE, fcntl.F_RDLCK)\n"
        "print('escaped')",
        quick=False,
    ),
    Probe(
        "enlarge a pipe", "import fcntl, os\nfcntl.fcntl(os.pipe()[0], 1031, 1 << 20)\nprint('escaped')", quick=False
    ),
    Probe(
        "take memory that counts as stack",
        _MAP + "print('refused' if libc.mmap(None, 1 << 20, 3, 0x122, -1, 0) == failed else 'escaped')",
        quick=False,
    ),
    Probe(
        "take shared memory from a device",
        "import mmap, os\nmmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20)\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "write to memory that is not for writing",
        _MAP + "address = libc.mmap(None, 4096, 1, 0x22, -1, 0)\nfile = open('/proc/self/mem', 'r+b', buffering=0)\n"
        "file.seek(address)\nfile.write(b'x')\nprint('escaped')",
        quick=False,
    ),
    Probe("hide its memory", _CALL + "print('refused' if libc.prctl(4, 0, 0, 0, 0) else 'escaped')", quick=False),
    Probe(
        "set memory policies", _CALL + "call({set_mempolicy}, 0, 0, 0)\ncall({mbind}, 0, 0, 0, 0, 0, 0)", quick=False
    ),
    Probe("keep Landlock's rules", _CALL + "call({landlock_create_ruleset}, struct.pack('Q', 1), 8, 0)", quick=False),
    Probe(
        "keep a socket filter",
        _FILTER + "socket.socketpair()[0].setsockopt(1, 26, struct.pack('HxxxxxxQ', 1, address))\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "keep a filter of system calls",
        _FILTER + "libc = ctypes.CDLL(None)\nprogram = struct.pack('HxxxxxxQ', 1, address)\n"
        "print('refused' if libc.prctl(22, 2, program, 0, 0) else 'escaped')",
        quick=False,
    ),
    Probe(
        "use seldom used protocols",
        "import socket\nfor kind, protocol in ((1, 262), (2, 136), (1, 132), (5, 0), (6, 0)):\n"
        "    try: socket.socket(socket.AF_INET, kind, protocol); print('escaped')\n"
        "    except OSError as error: last = error\nlast",
        quick=False,
    ),
    Probe(
        "take labels for flows of IPv6",
        "import socket, struct\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        "wanted = struct.pack('>15xBIBB', 1, 7, 0, 1) + struct.pack('HHHI', 1, 9, 9, 0)  # of ::1, made anew\n"
        "s.setsockopt(41, 32, wanted)\nprint('escaped')",
        quick=False,
    ),
    Probe(
        "fill a connection's buffers",
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "one = socket.create_connection(server.getsockname())\nother, _ = server.accept()\n"
        "one.setblocking(False)\nsent = 0\ntry:\n"
        "    while sent < 1 << 20: sent += one.send(bytes(1 << 16))\n    print('escaped')\nexcept OSError: print(sent)",
        quick=False,
    ),
    Probe("take terminals", "import os\nfor n in range(17): os.openpty()\nprint('escaped')", quick=False),
    Probe(
        "queue signals without end",
        "import ctypes, os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, (40,))\nlibc = ctypes.CDLL(None)\n"
        "sent = sum(libc.sigqueue(os.getpid(), 40, None) == 0 for n in range(1000))\n"
        "print('escaped' if sent == 1000 else sent)",
        quick=False,
    ),
    Probe(
        "have the host's limits (stack, priority, cores)",
        "import resource as r\nhard = lambda name: r.getrlimit(name)[1]\n"
        "bad = hard(r.RLIMIT_STACK) == -1 or hard(r.RLIMIT_RTPRIO) or hard(r.RLIMIT_NICE) or hard(r.RLIMIT_CORE) > 1\n"
        "print('escaped' if bad else 'bounded')",
        quick=False,
    ),
    Probe("change a user's priority", "import os\nos.setpriority(os.PRIO_USER, 0, 1)\nprint('escaped')", quick=False),
    Probe(
        "learn the host's name",
        "import platform\nprint('escaped' if platform.node() == {host!r} != 'sandbox' else platform.node())",
        quick=False,
        tiers=_ROOTED,
    ),
    Probe(
        "change a file's mode and times",
        "import os\nbefore = os.stat({file!r})\nos.chmod({file!r}, 0o604)\nos.utime({file!r}, (1, 1))\n"
        "after = os.stat({file!r})\nsame = (before.st_mode, before.st_mtime) == (after.st_mode, after.st_mtime)\n"
        "print('nothing happened' if same else 'escaped')",
    ),
    Probe(
        "change attributes of files that it can read",
        "import fcntl\nwith open('/usr/bin/env') as file: fcntl.ioctl(file, 0x80086601, bytes(8))\nprint('escaped')",
        quick=False,
    ),
    Probe("lower another's limits", "import resource\nresource.prlimit({pid}, resource.RLIMIT_CPU)\nprint('escaped')"),
    Probe(
        "change another's schedule",
        "import os\nfor change in (lambda pid: os.setpriority(0, pid, os.getpriority(0, pid)),\n"
        "               lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid))):\n"
        "    try: change({pid}); print('escaped')\n    except OSError as error: last = error\nlast",
        quick=False,
    ),
    Probe("hold another's process", "import os\nos.pidfd_open({pid})\nprint('escaped')", quick=False),
    Probe(
        "send a message to a socket with a name",
        "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', {letters!r})\n"
        "print('escaped')",
        quick=False,
    ),
    Probe(
        "attach memory of others (System V)",
        _CALL + "for number in range(64): call({shmat}, number, 0, 0o10000)",
        quick=False,
    ),
    Probe(
        "keep locks without end",
        "import fcntl, struct\nopen('f', 'w').close()\none, other = open('f', 'r+b'), open('f', 'r+b')\n"
        "lock = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0)\nfcntl.fcntl(one, fcntl.F_OFD_SETLK, lock)\n"
        "found, *_ = struct.unpack('hhqqi', fcntl.fcntl(other, fcntl.F_OFD_GETLK, lock))\n"
        "print('no lock' if found == fcntl.F_UNLCK else 'escaped')",
        quick=False,
    ),
    Probe(
        "keep connections without descriptors",
        "import socket\nserver, made = socket.create_server(('127.0.0.1', 0), backlog=1000), 0\ntry:\n"
        "    for made in range(200): socket.create_connection(server.getsockname(), 0.05).close()\n"
        "    print('escaped')\nexcept OSError: print(made)",
        quick=False,
    ),
    Probe(
        "have the host's disk write",
        "import os\ntry: os.fsync(999); print('not asked')\nexcept OSError: print('escaped')",
        quick=False,
    ),
)
