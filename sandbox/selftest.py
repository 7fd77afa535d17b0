# ruff: noqa: T201 - prints its report
"""Runs the probes: the quick ones whenever a sandbox is opened, to choose the tier; all of them as a self-test."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox import isolation
from sandbox.base import Session
from sandbox.errors import SandboxUnavailable
from sandbox.inside import calls
from sandbox.isolation import NAMES, Tier
from sandbox.probes import PROBES, Probe
from sandbox.result import Outcome, Result
from sandbox.sandbox import Sandbox

_HELD, _ESCAPED = "contained", "ESCAPED"
_COLUMN = max(len(probe.name) for probe in PROBES)


_READ_PYTHON = """
import os, sys
for folder in filter(os.path.isdir, sys.path):
    for entry in [folder, *(entry.path for entry in os.scandir(folder))]:
        if entry == folder or os.path.basename(entry).partition(".")[0].isidentifier():
            try:
                os.close(os.open(os.path.join(entry, "__init__.py") if os.path.isdir(entry) else entry, os.O_RDONLY))
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                sys.exit(f"{error.strerror}: {error.filename} (chmod -R a+rX on its folder makes it readable)")
import colorsys
"""
"""Opens everything that can be imported, since a kernel may run as another user; names the first file that fails."""


@contextlib.contextmanager
def bait(folder: Path) -> Iterator[dict[str, Any]]:
    """Create targets on the host for the probes. Yields their names, to be filled into the probes' code."""
    abstract = f"\0sandbox-selftest-{secrets.token_hex(8)}"
    secret = secrets.token_hex(16)
    home = isolation.home()
    with (
        tempfile.NamedTemporaryFile(dir=folder) as file,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters,
    ):
        local.bind(abstract)
        local.listen()
        letters.bind(f"{folder}/letters")
        Path(folder, "letters").chmod(0o777)
        try:
            hidden = [] if home is None else [str(path) for path in home.iterdir() if isolation.hides(path)]
        except OSError:
            hidden = []
        os.environ["SANDBOX_SELFTEST"] = secret
        try:
            yield {
                "file": file.name,
                "hidden": [*hidden[:20], "/etc/shadow"],
                "secret": secret,
                "port": server.getsockname()[1],
                "abstract": abstract,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "letters": letters.getsockname(),
                **{name: calls.here(numbers) for group in calls.REFUSED.values() for name, numbers in group.items()},
            }
        finally:
            del os.environ["SANDBOX_SELFTEST"]
            Path(folder, "letters").unlink(missing_ok=True)


async def attempt(session: Session, probe: Probe, filled: dict[str, Any]) -> tuple[bool, str]:
    """Whether a probe was contained, and the last line of its result."""
    result: Result = await session.execute(probe.code.format(**filled), timeout=10)
    return "escaped" not in result.stdout, _last_line(result)


def _last_line(result: Result) -> str:
    return result.text.splitlines()[-1] if result.text else str(result.outcome)


async def quick(session: Session, tier: Tier, folder: Path) -> list[str]:
    """Run a canary cell, then the quick probes. Returns the escapes, empty if the isolation holds.

    Raises SandboxUnavailable if even the canary cell fails.
    """
    canary = await session.execute("x = 6\nprint(x * 7)")
    if canary.outcome is not Outcome.OK or canary.text != "42":
        raise SandboxUnavailable(f"a first cell did not work: {_last_line(canary)}")
    result = await session.execute(_READ_PYTHON)
    if result.outcome is not Outcome.OK or result.text:
        raise SandboxUnavailable(f"the code cannot read all of Python: {_last_line(result)}")
    if tier == 0:
        return []
    escaped = []
    with bait(folder) as filled:
        for probe in PROBES:
            if probe.quick and tier in probe.tiers:
                contained, last = await attempt(session, probe, filled)
                if not contained:
                    escaped.append(f"code could {probe.name} ({last})")
    return escaped


async def full(expected: int | None, tier: Tier | None) -> int:
    """Run each probe in its own session and print the results. Returns the exit status.

    Args:
        expected: the weakest acceptable tier; None for any.
        tier: the tier to try; None for the strongest that works here.
    """
    escaped = 0
    async with Sandbox(size=2, tier=tier or None) as box:
        print(f"isolation: {box.isolation}")
        print(f"cgroups: {box.cgroups}")
        with bait(box._require_open()) as filled:
            for probe in PROBES:
                if box.tier not in probe.tiers:
                    print(f"{'-':>9}  {probe.name:<{_COLUMN}} not prevented in this tier")
                    continue
                async with box.session() as session:
                    contained, last = await attempt(session, probe, filled)
                escaped += not contained
                print(f"{_HELD if contained else _ESCAPED:>9}  {probe.name:<{_COLUMN}} {last}")
            contained, last = await _sibling(box)
            escaped += not contained
            print(f"{_HELD if contained else _ESCAPED:>9}  {'reach a sibling session':<{_COLUMN}} {last}")
        print("all probes contained" if not escaped else f"{escaped} probes NOT contained")
        if expected is not None and box.tier > expected:
            print(f"tier {expected} was expected, this is {NAMES[box.tier]}")
            return 1
    return 1 if escaped else 0


async def _sibling(box: Sandbox) -> tuple[bool, str]:
    """Open two sessions: one creates files and listening sockets, the other tries to reach them."""
    async with box.session() as one, box.session() as other:
        await one.execute(
            "import socket, os\nfound = os.getpid()\nopen('/tmp/note', 'w').write('x')\nopen('note', 'w').write('x')\n"
            "s = socket.socket(socket.AF_UNIX); s.bind('\\0sibling'); s.listen()\n"
            "t = socket.create_server(('127.0.0.1', 4321))"
        )
        result = await other.execute(
            "import socket, os\nprint('escaped' if os.path.exists('/tmp/note') or os.path.exists('note') else '')\n"
            "for family, address in ((socket.AF_UNIX, '\\0sibling'), (socket.AF_INET, ('127.0.0.1', 4321))):\n"
            "    try: socket.socket(family).connect(address); print('escaped')\n    except OSError as e: last = e\nlast"
        )
        kept = (await one.execute("6 * 7")).text == "42"
    return "escaped" not in result.stdout and kept, result.text.splitlines()[-1] if result.text else "nothing"
