"""Patches for libraries that do not work well in a kernel, applied when they are imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from . import machine, shared
from .images import images


def _numba(module: ModuleType) -> None:
    """Make `cache=True` work for functions defined in cells: numba recognizes these by IPython's names of cells."""
    locator = module.IPythonCacheLocator
    of_ipython = locator.from_function.__func__

    def from_function(cls: Any, function: Any, file: str) -> Any:
        return of_ipython(cls, function, f"<ipython-{file}" if file.startswith("<cell ") else file)

    locator.from_function = classmethod(from_function)


def _torch(module: ModuleType) -> None:
    """Suppress torch's warnings about /proc/cpuinfo, at the first tensor, and about locked memory.

    Where descriptors cannot be sent, workers send file names instead.
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
    if shared.user:  # workers share tensors in named files, since descriptors cannot be sent
        module.multiprocessing.set_sharing_strategy("file_system")


class _SeesMaps:
    def __bool__(self) -> bool:
        try:
            with Path("/proc/self/maps").open("rb"):
                return True
        except OSError:
            return False


def _threadpoolctl(module: Any) -> None:
    """In tier 3, threadpoolctl (and so much of scikit-learn) fails when it reads /proc; make it use its other way."""
    if hasattr(module, "_HAS_PROCFS"):
        module._HAS_PROCFS = _SeesMaps()  # evaluated when used, since this may be the zygote


def _matplotlib(module: Any) -> None:
    """Make `plt.show()` and `figure.show()`, which have no effect without a display, pass figures on as images."""
    original = module.FigureManagerBase.show

    @wraps(original)
    def show(manager: Any) -> Any:
        images.add_figure(manager.canvas.figure)
        return original(manager)

    module.FigureManagerBase.show = show


_LIBRARIES: dict[str, Callable[[ModuleType], None]] = {
    "matplotlib.backend_bases": _matplotlib,
    "numba.core.caching": _numba,
    "psutil._common": machine.answer,
    "threadpoolctl": _threadpoolctl,
    "torch": _torch,
}


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        with suppress(Exception):  # another version of the library may not need or fit the patch
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
    """Install the import hook. To be called in the zygote, which sees all of /proc."""
    sys.meta_path.insert(0, _Finder)
    flags = _processor_flags()
    if {"fma", "avx2"} <= flags:  # where torch cannot read them, it would use its slowest code
        wide = {"avx512vl", "avx512bw", "avx512dq"} <= flags
        os.environ["ATEN_CPU_CAPABILITY"] = "avx512" if wide else "avx2"


def _processor_flags() -> set[str]:
    """The CPU's feature flags, by the names of Linux; on x86 only."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            first = file.read(8 << 10)
    except OSError:
        return set()
    lines = [line for line in first.splitlines() if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()


def end_figures() -> None:
    """Show the figures that are open at the end of a cell, and close them, as a notebook does.

    matplotlib's notebook backend does it itself; the agg backend, which shows nothing, does not.
    """
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        with suppress(Exception):  # the code may have replaced the module
            if (numbers := pyplot.get_fignums()) and pyplot.get_backend().lower() == "agg":
                try:
                    for number in numbers if images.wanted else ():
                        images.add_figure(pyplot.figure(number))
                finally:
                    pyplot.close("all")
