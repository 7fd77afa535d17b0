"""Private copies of builtins and modules for the kernel, so that replacements by code do not affect it.

A function looks names up in the `__builtins__` that its module had when the function was made. So the modules of this
package get a copy of the builtins before they are executed, and copies of the modules they import afterwards.
"""

from __future__ import annotations

import builtins
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_BUILTINS = dict(vars(builtins))
_HELD = ("_signal", "codecs", "gc", "io", "mmap", "os", "resource", "select", "signal", "struct", "threading", "time")


class _Held(ModuleType):
    """A snapshot of a module. Assignments go to the module itself."""

    def __init__(self, module: ModuleType) -> None:
        self.__dict__.update(vars(module))
        self.__dict__["_module"] = module

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_module"], name, value)


_held: dict[str, _Held] = {}


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = _BUILTINS
        super().exec_module(module)
        for name, value in vars(module).items():
            if isinstance(value, ModuleType) and value.__name__ in _HELD:
                if value.__name__ not in _held:
                    _held[value.__name__] = _Held(value)
                module.__dict__[name] = _held[value.__name__]


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.rpartition(".")[0] != __package__:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Install the import hook for all modules of this package that are imported from here on."""
    sys.meta_path.insert(0, _Finder)
