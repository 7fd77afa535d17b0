"""Libraries that take a kernel for something else than a notebook, put right as they are imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from . import machine, shared


def _numba(module: ModuleType) -> None:
    """`cache=True` of a function that a cell defines: numba knows these by IPython's names for cells."""
    locator = module.IPythonCacheLocator
    of_ipython = locator.from_function.__func__

    def from_function(cls: Any, function: Any, file: str) -> Any:
        return of_ipython(cls, function, f"<ipython-{file}" if file.startswith("<cell ") else file)

    locator.from_function = classmethod(from_function)


def _torch(module: ModuleType) -> None:
    """A complaint about /proc/cpuinfo, which comes with the first number, and one about memory that may be locked.

    Where descriptors cannot be sent, workers send names.
    """
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        module.ones(1).add(1)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
    module.backends.nnpack.set_flags(False)
    if shared.user:  # what workers give is in files, whose names are sent instead of descriptors
        module.multiprocessing.set_sharing_strategy("file_system")


class _SeesMaps:
    def __bool__(self) -> bool:
        try:
            with Path("/proc/self/maps").open("rb"):
                return True
        except OSError:
            return False


def _threadpoolctl(module: Any) -> None:
    """In tier 3 it, and so much of scikit-learn, fails at /proc; without, it has another way to find the libraries."""
    if hasattr(module, "_HAS_PROCFS"):
        module._HAS_PROCFS = _SeesMaps()  # at the time of asking: this may be the zygote


_LIBRARIES: dict[str, Callable[[ModuleType], None]] = {
    "numba.core.caching": _numba,
    "psutil._common": machine.answer,
    "threadpoolctl": _threadpoolctl,
    "torch": _torch,
}


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        with suppress(Exception):  # another version of the library, which goes as far as it does
            _LIBRARIES[module.__name__](module)


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _LIBRARIES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Be there when they are imported. To be called in the zygote, which sees all of /proc."""
    sys.meta_path.insert(0, _Finder)
    flags = _processor_flags()
    if {"fma", "avx2"} <= flags:  # torch would take the slowest of its ways where it cannot ask
        wide = {"avx512vl", "avx512bw", "avx512dq"} <= flags
        os.environ["ATEN_CPU_CAPABILITY"] = "avx512" if wide else "avx2"


def _processor_flags() -> set[str]:
    """What the processor can, by the names of Linux; of x86 alone."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            first = file.read(8 << 10)
    except OSError:
        return set()
    lines = [line for line in first.splitlines() if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()


def close_figures() -> None:
    """Have each cell draw on figures of its own, as in a notebook.

    matplotlib's backend for notebooks does it itself; the plain one, which shows nothing, does not.
    """
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        with suppress(Exception):  # whatever the code has put there
            if pyplot.get_fignums() and pyplot.get_backend().lower() == "agg":
                pyplot.close("all")
