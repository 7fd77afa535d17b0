"""How many kernels this process has room for: by the memory of the machine, and by the descriptors that it may have.

For each kernel the host holds `_KERNEL` descriptors, and `_START` more while it starts. Linux's default for the soft
limit of descriptors, 1024, is for programs that use select(2): it is raised towards the hard one where that is needed.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_KERNEL_BYTES = 48 << 20  # of an idle kernel, and a little work; what its cells may add is theirs to limit
_KERNEL = 3  # two ends of pipes, and the process
_START = 5  # the kernel's ends of the pipes, up to two cgroups, and one that is open for a moment
_MOST_STARTS = 16  # at once; more would be of no use, since one zygote forks them all
_CALLER_LEAST, _CALLER_MOST = 16, 64  # descriptors that are left for all else


@dataclass(slots=True, eq=False)
class Claim:
    """The room that one open sandbox has claimed. Made by `claim`; whoever has it calls `release`.

    Attributes:
        kernels: that may live at once.
        starts: that may be under way at once, before any of their descriptors is made.
        live: returns how many of the kernels there are.
    """

    kernels: int
    starts: int
    live: Callable[[], int] = field(default=lambda: 0)

    @property
    def unused(self) -> int:
        """Descriptors that it may still come to hold."""
        return _KERNEL * max(0, self.kernels - self.live()) + _START * self.starts

    def release(self) -> None:
        """Give the room back. Safe to call again."""
        if self in _claims:
            _claims.remove(self)


_claims: list[Claim] = []  # of this process's open sandboxes


def most_kernels() -> int:
    """How many kernels may live at once here, by the memory available and the descriptors that we may have."""
    by_descriptors = most = _by_descriptors(_free())[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                most = int(line.split()[1]) * 1024 // _KERNEL_BYTES
    return max(1, min(by_descriptors, most))


def claim(size: int) -> Claim:
    """Claim room for so many kernels, or for as many as there may be here, which is at least one.

    Raises the soft limit of descriptors as far as they need, so that the caller keeps what it had; it stays raised.
    """
    kernels = min(size, most_kernels())
    made = Claim(kernels, min(kernels, _by_descriptors(_free())[1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = hard - _free() + made.unused + _CALLER_MOST
    if soft < min(needed, hard):
        with contextlib.suppress(OSError, ValueError):  # where a filter of system calls forbids it
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(needed, soft + made.unused), hard), hard))
    _claims.append(made)
    return made


def _by_descriptors(free: int) -> tuple[int, int]:
    """How many kernels so many descriptors are enough for, and how many starts at once: fewer where they are few."""
    starts = max(1, min(_MOST_STARTS, free // 16))
    caller = max(_CALLER_LEAST, min(_CALLER_MOST, free // 4))
    return (free - caller - _START * starts) // _KERNEL, starts


def _free() -> int:
    """Descriptors that this process may still open, less those that its open sandboxes may still come to hold."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # never infinite: fs.nr_open bounds it
    try:
        held = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - there are many, and one is of this very call
    except OSError:  # the table is full
        held = hard
    return hard - held - sum(claim.unused for claim in _claims)
