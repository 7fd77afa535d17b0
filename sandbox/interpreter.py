"""The files of this process's Python, which kernels need to see because they run the same Python.

All paths are absolute and without ``..``, as mounts require.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

_PARTS = ("bin", "include", "lib", "lib32", "lib64", "libexec", "share", "pyvenv.cfg")
"""The parts of a prefix that belong to Python. Other content (a project, another environment) is not shown."""


def plain(path: str | Path) -> Path:
    """A path without ``..`` to the same file: simplified as text if that is equivalent, else resolved."""
    simple = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps ".."
    try:
        return simple if simple.samefile(path) else Path(path).resolve()
    except OSError:
        return simple


@cache
def executable() -> Path:
    """The path by which the interpreter was started: in a virtual environment, the link in it."""
    return plain(sys.executable)


@cache
def libraries() -> list[Path]:
    """The folders of installed packages on the path (not projects installed in editable mode)."""
    return [plain(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


@cache
def shared_libraries() -> list[Path]:
    """The folders of LD_LIBRARY_PATH, which a Python from a module system or a custom build may need to start."""
    entries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [plain(entry) for entry in entries if entry.startswith("/") and Path(entry).is_dir()]


def _own_library() -> set[Path]:
    """Python's shared library, if it has one: the executable may refer to it by a path of its own."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    names = {line.split(maxsplit=5)[5] for line in lines if "/libpython" in line}
    return {plain(name) for name in names}


@cache
def files() -> list[Path]:
    """All folders and files that are needed, by each path that leads to them; some lie within others."""
    prefixes = {plain(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    found = {prefix / part for prefix in prefixes for part in _PARTS}
    found |= {plain(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    found |= {*libraries(), *shared_libraries(), *_own_library(), executable().parent}
    return sorted(path for path in found | {path.resolve() for path in found} if path.exists())


@cache
def links() -> list[Path]:
    """The links from the interpreter's path to its file: in a virtual environment there may be several."""
    found = []
    path = executable()
    while path.is_symlink() and path not in found:
        found.append(path)
        path = plain(path.parent / path.readlink())
    return found
