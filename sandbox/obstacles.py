"""What keeps code from being isolated on this machine, as far as it can be seen, and what to do about each."""

from __future__ import annotations

import contextlib
import resource
import shutil
from pathlib import Path

from sandbox import users

_LIMITS = {
    resource.RLIMIT_AS: ("-v", 384 << 10, 4 << 20, 1024),
    resource.RLIMIT_DATA: ("-d", 256 << 10, 1 << 20, 1024),
    resource.RLIMIT_FSIZE: ("-f", 1, 1 << 10, 1024),
    resource.RLIMIT_NOFILE: ("-n", 32, 128, 1),
    resource.RLIMIT_NPROC: ("-u", 1, 128, 1),
}
"""Limit: ulimit's letter for it, the least to start with and what is more than enough for a few kernels, both in
ulimit's units, and those units. With less memory than the least, OpenBLAS, which numpy and scipy load, tries to get it
for ever instead of failing."""

_SWITCHES = {
    "user/max_user_namespaces": "0",
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}
"""Files below /proc/sys, and with what in it ordinary users have no user namespaces of use."""


def found() -> list[str]:
    """Everything that is known to be in the way, each as what to do."""
    remedies = [] if shutil.which("bwrap") else ["install bubblewrap"]
    if not users.changes_users():
        remedies += [f"allow user namespaces (sysctl {name})" for name in _closed_switches()]
    if masked := masked_proc(Path("/proc/self/mountinfo").read_text()):
        remedies.append(
            f"have {masked[0]} and the like not masked (Docker: --security-opt systempaths=unconfined, "
            "Podman: --security-opt unmask=ALL, Kubernetes: procMount: Unmasked)"
        )
    if "\nSeccomp:\t2" in Path("/proc/self/status").read_text():
        remedies.append(
            "have no filter of system calls over this process (Docker and Podman: --security-opt seccomp=unconfined, "
            "Kubernetes: seccompProfile: Unconfined)"
        )
    return [*remedies, *limits()]


def limits() -> list[str]:
    """The hard limits of this process that may be too low to work with, each as what to do."""
    return [remedy for remedy, _ in _low_limits()]


def hopeless_limits() -> list[str]:
    """Those with which no kernel starts in any tier."""
    return [remedy for remedy, hopeless in _low_limits() if hopeless]


def _low_limits() -> list[tuple[str, bool]]:
    low = []
    for number, (letter, least, enough, unit) in _LIMITS.items():
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY and hard < enough * unit:
            low.append((f"raise the limit  ulimit {letter} {hard // unit}  ({enough} is enough)", hard < least * unit))
    return low


def masked_proc(mounts: str) -> list[str]:
    """What is mounted over parts of /proc: then Linux lets nobody in a user namespace mount another.

    Args:
        mounts: /proc/self/mountinfo; see proc_pid_mountinfo(5).
    """
    return [point for line in mounts.splitlines() if (point := line.split()[4]).startswith("/proc/")]


def _closed_switches() -> list[str]:
    closed = []
    for name, value in _SWITCHES.items():
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == value:
                closed.append(f"{name.replace('/', '.')}, which is {value}")
    return closed
