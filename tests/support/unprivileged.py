"""Run a command as an ordinary user, with an interpreter that root keeps in a private home: for tests run as root.

    python tests/support/unprivileged.py COMMAND...

In a mount namespace of its own the folders on the way to the interpreter and to this repository are made readable,
where they are not; everybody else goes on seeing what they saw.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
USER = 65_532  # unused: neither a user of the system, nor one of the kernels'


def closed_folder(path: Path) -> Path | None:
    """The topmost folder on the way to a path that others may not enter."""
    return next((folder for folder in reversed([path, *path.parents]) if not folder.stat().st_mode & 0o001), None)


def _open_ways(paths: list[Path]) -> None:
    from sandbox.inside import system

    system.unshare(system.CLONE_NEWNS)
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    closed = {path: folder for path in paths if (folder := closed_folder(path)) is not None}
    for folder in set(closed.values()):
        inside = [path for path in paths if closed.get(path) == folder]
        inside = [path for path in inside if not any(parent in inside for parent in path.parents)]
        held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in inside}
        system.mount("tmpfs", str(folder), "tmpfs", 0, "mode=755")
        for path, handle in held.items():
            path.mkdir(parents=True)
            system.mount(f"/proc/self/fd/{handle}", str(path), None, system.MS_BIND | system.MS_REC)
            os.close(handle)


def main() -> None:
    """Run it, and end with its status."""
    sys.path.insert(0, str(ROOT))
    _open_ways(sorted({Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), ROOT.resolve()}))
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        os.chown(home, USER, USER)
        (Path(home) / "diary").write_text("dear diary")
        named = {"HOME": home, "TMPDIR": home, "USER": "ordinary", "LOGNAME": "ordinary"}
        done = subprocess.run(sys.argv[1:], user=USER, group=USER, extra_groups=[], env=os.environ | named, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
