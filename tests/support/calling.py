"""Cells that make system calls, and the results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sandbox import Outcome, Result
from sandbox.inside import calls

Attack = Callable[..., Awaitable[Result]]

NUMBER = {
    name: number
    for table in (
        *calls.REFUSED.values(),
        *calls.REFUSED_WITHOUT_NAMESPACES.values(),
        *calls.REFUSED_WITH_A_SHARED_USER.values(),
        calls.WITHOUT_EFFECT,
        calls.METADATA,
        {"close_range": calls.ARGUMENTS["close_range"]},
    )
    for name, numbers in table.items()
    if (number := calls.here(numbers)) is not None
}
CALL = f"""
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct
NUMBER = {NUMBER!r}
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def call(name, *arguments):
    done = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in (NUMBER[name], *arguments)])
    return errno.errorcode[ctypes.get_errno()] if done < 0 else done
def prctl(*arguments):
    done = libc.prctl(*map(ctypes.c_ulong, (*arguments, 0, 0, 0, 0)[:5]))
    return errno.errorcode[ctypes.get_errno()] if done < 0 else done
def tried(function, *arguments):
    try: return function(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
def mapped(flags, size=64 << 20):
    address = libc.mmap(None, ctypes.c_size_t(size), 3, flags, -1, ctypes.c_long(0))
    return errno.errorcode[ctypes.get_errno()] if address == ctypes.c_void_p(-1).value else address
program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), 8)
described = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(program)), 16)
entries = [(1, 7, -1), *[(2, 7, os.getuid())] * 100, (4, 7, -1), (16, 7, -1), (32, 7, -1)]
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
os.mkdir("d"); open("f", "w").close()
pair = socket.socketpair()[0]
"""


async def value_of(attack: Attack, code: str) -> str:
    """The value of a cell that has the helpers above."""
    result = await attack(CALL + code)
    assert result.outcome is Outcome.OK, result.text
    return result.text.strip("'")
