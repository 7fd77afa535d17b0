"""How many kernels this process can run at once, by the memory of the machine and the file descriptors it may open.

For each kernel the host holds `_KERNEL` descriptors, and `_START` more while it starts. Linux's default soft limit of
descriptors, 1024, exists for programs that use select(2): it is raised towards the hard limit when needed.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_KERNEL_BYTES = 48 << 20  # an idle kernel and a little work; what cells add is bounded by `Limits`
_KERNEL = 3  # two pipe ends and a pidfd
_START = 5  # the kernel's ends of the pipes, up to two cgroup entries, and one open for a moment
_MOST_STARTS = 16  # concurrent starts; more would not help, since one zygote forks them all
_CALLER_LEAST, _CALLER_MOST = 16, 64  # descriptors left for everything else


@dataclass(slots=True, eq=False)
class Claim:
    """Descriptors reserved for one open sandbox. Made by `claim`; the owner must call `release`.

    Attributes:
        kernels: maximum number of live kernels.
        starts: maximum number of concurrent starts; a start opens no descriptor before its turn.
        live: returns the number of live kernels.
    """

    kernels: int
    starts: int
    live: Callable[[], int] = field(default=lambda: 0)

    @property
    def unused(self) -> int:
        """Reserved descriptors that are not open yet."""
        return _KERNEL * max(0, self.kernels - self.live()) + _START * self.starts

    def release(self) -> None:
        """Release the reservation. Safe to call again."""
        if self in _claims:
            _claims.remove(self)


_claims: list[Claim] = []  # of the open sandboxes of this process


def most_kernels() -> int:
    """How many kernels can be alive at once on this machine, by available memory and the limit of descriptors."""
    by_descriptors = most = _by_descriptors(_free())[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                most = int(line.split()[1]) * 1024 // _KERNEL_BYTES
    return max(1, min(by_descriptors, most))


def claim(size: int) -> Claim:
    """Reserve descriptors for `size` kernels, or for as many as fit, which is at least one.

    Raises the soft limit of descriptors by what the kernels need, so that the caller keeps what it had. The limit stays
    raised.
    """
    kernels = min(size, most_kernels())
    made = Claim(kernels, min(kernels, _by_descriptors(_free())[1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = hard - _free() + made.unused + _CALLER_MOST
    if soft < min(needed, hard):
        with contextlib.suppress(OSError, ValueError):  # e.g. where a seccomp filter forbids it
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(needed, soft + made.unused), hard), hard))
    _claims.append(made)
    return made


def _by_descriptors(free: int) -> tuple[int, int]:
    """How many kernels fit into `free` descriptors, and how many concurrent starts."""
    starts = max(1, min(_MOST_STARTS, free // 16))
    caller = max(_CALLER_LEAST, min(_CALLER_MOST, free // 4))
    return (free - caller - _START * starts) // _KERNEL, starts


def _free() -> int:
    """Descriptors that this process may still open, minus those reserved for its open sandboxes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # never infinite: fs.nr_open bounds it
    try:
        held = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - there are many; one belongs to this call
    except OSError:  # the table is full
        held = hard
    return hard - held - sum(claim.unused for claim in _claims)
