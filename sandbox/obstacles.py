"""Known reasons why code cannot be isolated on this machine, and what to do about each."""

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
"""Limit: ulimit's letter, the minimum to start at all and an ample value for a few kernels, both in ulimit's units, and
the size of that unit. With less memory than the minimum, OpenBLAS, which numpy and scipy load, retries forever instead
of failing."""

_SWITCHES = {
    "user/max_user_namespaces": "0",
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}
"""Files below /proc/sys, and the value with which ordinary users cannot use user namespaces."""


def found() -> list[str]:
    """All known obstacles, each as an instruction."""
    remedies = [] if shutil.which("bwrap") else ["install bubblewrap"]
    if not users.changes_users():
        remedies += [f"allow user namespaces (sysctl {name})" for name in _closed_switches()]
    if masked := masked_proc(Path("/proc/self/mountinfo").read_text()):
        remedies.append(
            f"unmask {masked[0]} and similar paths (Docker: --security-opt systempaths=unconfined, "
            "Podman: --security-opt unmask=ALL, Kubernetes: procMount: Unmasked)"
        )
    if "\nSeccomp:\t2" in Path("/proc/self/status").read_text():
        remedies.append(
            "run this process without a seccomp filter (Docker and Podman: --security-opt seccomp=unconfined, "
            "Kubernetes: seccompProfile: Unconfined)"
        )
    return [*remedies, *limits()]


def limits() -> list[str]:
    """Hard limits of this process that may be too low, each as an instruction."""
    return [remedy for remedy, _ in _low_limits()]


def hopeless_limits() -> list[str]:
    """Hard limits so low that no kernel can start in any tier, each as an instruction."""
    return [remedy for remedy, hopeless in _low_limits() if hopeless]


def _low_limits() -> list[tuple[str, bool]]:
    low = []
    for number, (letter, least, enough, unit) in _LIMITS.items():
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY and hard < enough * unit:
            low.append((f"raise the limit  ulimit {letter} {hard // unit}  ({enough} is enough)", hard < least * unit))
    return low


def masked_proc(mounts: str) -> list[str]:
    """Mounts that hide parts of /proc: with any, Linux refuses to mount /proc in a user namespace.

    Args:
        mounts: content of /proc/self/mountinfo; see proc_pid_mountinfo(5).
    """
    return [point for line in mounts.splitlines() if (point := line.split()[4]).startswith("/proc/")]


def _closed_switches() -> list[str]:
    closed = []
    for name, value in _SWITCHES.items():
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == value:
                closed.append(f"{name.replace('/', '.')}, which is {value}")
    return closed
