"""Common installations of Python, and sandboxes opened by them in separate processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

_OPEN = """
import asyncio, json, sys
from sandbox import Sandbox, SandboxError

async def main():
    how, *cells = sys.argv[1:]
    options = {"unsafe_no_isolation": True} if how == "0" else {"tier": int(how) or None} if how.isdigit() else {}
    try:
        async with Sandbox(size=1, prestart=0, **options) as box, box.session() as session:
            print(json.dumps([box.isolation, *[(await session.execute(cell, timeout=5)).text for cell in cells]]))
    except SandboxError as error:
        print(json.dumps([type(error).__name__, str(error)]))

asyncio.run(main())
"""


def site_packages(prefix: Path) -> Path:
    """Where the packages of an environment are."""
    return prefix / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def _add_our_packages(prefix: Path) -> None:
    ours = [entry for entry in sys.path if Path(entry).name == "site-packages"]
    (site_packages(prefix) / "ours.pth").write_text("".join(f"{entry}\n" for entry in ours))


def virtual_environment(prefix: Path) -> Path:
    """Make a virtual environment that has the packages of this one, and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    _add_our_packages(prefix)
    return prefix / "bin" / "python"


def installation(prefix: Path) -> Path:
    """Make an installation of its own, as conda does: no virtual environment, everything in one prefix."""
    version = f"python{sysconfig.get_python_version()}"
    binary = Path(sys.executable).resolve()
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(binary, prefix / "bin" / version)
    (prefix / "bin" / "python").symlink_to(version)
    left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), prefix / "lib" / version, symlinks=True, ignore=left_out)
    site_packages(prefix).mkdir()
    _add_our_packages(prefix)
    return prefix / "bin" / "python"


def install(prefix: Path) -> None:
    """Put the package where a wheel would."""
    shutil.copytree(ROOT / "sandbox", site_packages(prefix) / "sandbox")


def opened(
    python: str | Path = sys.executable,
    how: str | int = "",
    *cells: str,
    source: Path | None = ROOT,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    within: Sequence[str] = (),
) -> list[str]:
    """Open a sandbox: what isolates it and the cells' texts; or the error's name, and what it says.

    Args:
        python: the interpreter.
        how: the tier; 0 for none, nothing for the strongest.
        cells: what to run in it.
        source: the folder of the package `sandbox`; None where the interpreter has it.
        cwd: the current folder.
        env: what to change in the environment; None takes a name away.
        within: a command that runs the rest of its arguments.
    """
    changed = {"PYTHONPATH": None if source is None else str(source), **(env or {})}
    environment = {name: value for name, value in {**os.environ, **changed}.items() if value is not None}
    done = subprocess.run(
        [*within, str(python), "-c", _OPEN, str(how), *cells],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
