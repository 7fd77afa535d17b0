"""Which files this process's Python consists of: what a kernel, which runs the same Python, has to see.

All names are absolute and without ``..``, as both sides of a mount need them.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

_PARTS = ("bin", "include", "lib", "lib32", "lib64", "libexec", "share", "pyvenv.cfg")
"""What belongs to Python in its prefix. What else lies there (a project, another environment) is nobody's business."""


def plain(path: str | Path) -> Path:
    """A name without ``..`` for the same file: by the text where that leads there, else by the file system."""
    simple = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps ".."
    try:
        return simple if simple.samefile(path) else Path(path).resolve()
    except OSError:
        return simple


@cache
def executable() -> Path:
    """The interpreter, as it was called: of a virtual environment the link in it."""
    return plain(sys.executable)


@cache
def libraries() -> list[Path]:
    """The folders of installed packages on the path (not projects installed in editable mode)."""
    return [plain(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


@cache
def shared_libraries() -> list[Path]:
    """The folders of LD_LIBRARY_PATH, without which a Python of a module system or an own build does not start."""
    entries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [plain(entry) for entry in entries if entry.startswith("/") and Path(entry).is_dir()]


def _own_library() -> set[Path]:
    """The file of Python's own shared library, where it has one: it may be found by a path within the executable."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    names = {line.split(maxsplit=5)[5] for line in lines if "/libpython" in line}
    return {plain(name) for name in names}


@cache
def files() -> list[Path]:
    """All folders and files that are needed, by each name that leads there; some lie within others."""
    prefixes = {plain(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    found = {prefix / part for prefix in prefixes for part in _PARTS}
    found |= {plain(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    found |= {*libraries(), *shared_libraries(), *_own_library(), executable().parent}
    return sorted(path for path in found | {path.resolve() for path in found} if path.exists())


@cache
def links() -> list[Path]:
    """The links from the interpreter's name to its file: that of a virtual environment may be a link to a link."""
    found = []
    path = executable()
    while path.is_symlink() and path not in found:
        found.append(path)
        path = plain(path.parent / path.readlink())
    return found
