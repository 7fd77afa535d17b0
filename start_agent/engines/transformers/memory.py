"""How much memory a KV cache may take, and what running out of it looks like."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

GIB = 1 << 30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
# What is free is shared with activations (GPU) and with the kernels of the sandbox and everybody else (CPU).
_SHARE_OF_GPU, _SHARE_OF_CPU = 0.85, 0.5


def cache_bytes(device: torch.device) -> int:
    """Bytes that a KV cache may take on a device, of what is free now that the model is loaded."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_GPU)
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return int(max(free, 0) * _SHARE_OF_GPU)
    return int(free_memory() * _SHARE_OF_CPU)


def free_memory() -> int:
    """Bytes of main memory that this process may still take: the machine's, or its cgroup's where that is less."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or no limit ("max")
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(limit - used, 0))
    return free


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused; on CPUs and on mps torch has no type for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "MPS backend out of memory" in text)


def give_back(device: torch.device) -> None:
    """Return what torch's allocator keeps of freed memory to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
