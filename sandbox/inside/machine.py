"""Answers psutil's reads of /proc files that kernels cannot see, with values of sysinfo(2) and zeros."""

from __future__ import annotations

import ctypes
import io
import os
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

_SYSINFO = struct.Struct("@l3L6LHH2LI")  # linux/sysinfo.h, without the padding
_libc = ctypes.CDLL(None)


def _memory() -> str:
    buffer = ctypes.create_string_buffer(256)
    if _libc.sysinfo(buffer):
        return ""
    _, _, _, _, total, free, shared, buffers, swap, free_swap, *_, unit = _SYSINFO.unpack_from(buffer.raw)
    sizes = {
        "MemTotal": total,
        "MemFree": free,
        "MemAvailable": free + buffers,
        "Buffers": buffers,
        "Cached": 0,
        "Shmem": shared,
        "Active": 0,
        "Inactive": 0,
        "Slab": 0,
        "SReclaimable": 0,
        "SwapTotal": swap,
        "SwapFree": free_swap,
    }
    return "".join(f"{name}: {size * unit // 1024} kB\n" for name, size in sizes.items())


def _times() -> str:
    counts = " 0" * 10
    return f"cpu{counts}\n" + "".join(f"cpu{number}{counts}\n" for number in range(os.cpu_count() or 1)) + "btime 0\n"


_FILES: dict[str, Callable[[], str]] = {
    "/proc/meminfo": _memory,
    "/proc/stat": _times,
    "/proc/vmstat": lambda: "pswpin 0\npswpout 0\n",
    "/proc/cpuinfo": lambda: "",
    "/proc/diskstats": lambda: "",
    "/proc/zoneinfo": lambda: "",
}


def answer(module: ModuleType) -> None:
    """Patch psutil's functions that open files."""
    for name in ("open_binary", "open_text"):
        if (opener := getattr(module, name, None)) is not None:
            setattr(module, name, _answering(opener))


def _answering(opener: Any) -> Any:
    def open_file(name: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return opener(name, *args, **kwargs)
        except (FileNotFoundError, PermissionError):
            if name not in _FILES:
                raise
            text: str = _FILES[name]()
            return io.StringIO(text) if opener.__name__ == "open_text" else io.BytesIO(text.encode())

    return open_file
