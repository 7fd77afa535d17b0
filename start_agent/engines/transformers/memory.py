"""Computes the memory for a KV cache, and recognizes errors of running out of memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

GIB = 1 << 30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
# Free memory is shared with activations (GPU), and with the sandbox's kernels and other processes (CPU).
_SHARE_OF_GPU, _SHARE_OF_CPU = 0.85, 0.5


def cache_bytes(device: torch.device) -> int:
    """The bytes for a KV cache on a device, from the memory that is free after loading the model."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_GPU)
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return int(max(free, 0) * _SHARE_OF_GPU)
    return int(free_memory() * _SHARE_OF_CPU)


def free_memory() -> int:
    """The bytes of main memory available to this process: the machine's, or its cgroup's if that is less."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or no limit ("max")
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(limit - used, 0))
    return free


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; for CPUs and mps torch has no error type for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "MPS backend out of memory" in text)


def release_memory(device: torch.device) -> None:
    """Return freed memory that torch's allocator keeps to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
