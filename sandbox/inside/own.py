"""Builtins of the kernel's own: what code puts in the place of Python's is not what runs its cells.

A function looks names up in the `__builtins__` that its module had when the function was made. So the modules of this
package get a copy before they are run.
"""

from __future__ import annotations

import builtins
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_BUILTINS = dict(vars(builtins))


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = _BUILTINS
        super().exec_module(module)


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
    """Give them to all modules of this package that are imported from here on."""
    sys.meta_path.insert(0, _Finder)
