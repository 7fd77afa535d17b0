"""Landlock: limits what a process may open, connect to and signal, where there are no namespaces (tier 3).

See linux/landlock.h. Needs ABI 6 (Linux 6.12), which also scopes abstract sockets and signals.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from . import system

LEAST_ABI = 6

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_OF_FILES = (1 << 16) - 1  # with REFER, TRUNCATE (ABI 3) and IOCTL_DEV (ABI 5)
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_ALL_OF_NETWORK = 3  # bind and connect of TCP; seccomp refuses internet sockets altogether
_ALL_SCOPES = 3  # abstract sockets, signals


def abi() -> int:
    """The Landlock ABI version of this Linux; 0 without Landlock."""
    try:
        return system.syscall(_CREATE_RULESET, None, 0, _VERSION, what="landlock")
    except OSError:
        return 0


def restrict(readable: list[str], writable: list[str]) -> None:
    """Restrict this process permanently to reading and executing files below some paths and writing below others.

    Raises OSError if Landlock is missing or too old.
    """
    if abi() < LEAST_ABI:
        raise OSError(f"Landlock ABI {LEAST_ABI} is needed, this Linux has {abi()}")
    attributes = ctypes.create_string_buffer(struct.pack("QQQ", _ALL_OF_FILES, _ALL_OF_NETWORK, _ALL_SCOPES), 24)
    ruleset = system.syscall(_CREATE_RULESET, attributes, 24, 0, what="landlock ruleset")
    may_write = _ALL_OF_FILES & ~(_MAKE_CHAR | _MAKE_BLOCK)
    try:
        for path, access in [
            *((path, _EXECUTE | _READ_FILE | _READ_DIR) for path in readable),
            *((path, may_write) for path in writable),
            *((path, _READ_FILE | _WRITE_FILE) for path in ("/dev/null", "/dev/full")),
            *((path, _READ_FILE) for path in ("/dev/zero", "/dev/random", "/dev/urandom")),
        ]:
            _allow(ruleset, path, access)
        system.syscall(_RESTRICT_SELF, ruleset, 0, what="landlock")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    if not Path(path).exists():
        return
    if not Path(path).is_dir():
        access &= _OF_A_FILE
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, handle), 12)
        system.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0, what=f"landlock {path}")
    finally:
        os.close(handle)
