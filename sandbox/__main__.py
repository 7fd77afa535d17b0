"""``python -m sandbox selftest``: try to get out, and say what held."""

from __future__ import annotations

# ruff: noqa: T201 - a command line prints
import argparse
import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path

from sandbox import Outcome, Sandbox, SandboxError

# Each probe prints "escaped" if it got what it was after. Names in braces are filled in from the host.
PROBES = {
    "read a file of the host": "open({file!r}).read()\nprint('escaped')",
    "see the home directory": (
        "import os\nhidden = {hidden!r}\n"
        "print('escaped' if any(os.path.exists(path) for path in hidden) else 'nothing there')"
    ),
    "read a secret of the environment": (
        "import os, glob\nseen = repr(os.environ)\n"
        "for path in glob.glob('/proc/*/environ'):\n"
        "    try: seen += open(path).read()\n    except OSError: pass\n"
        "print('escaped' if {secret!r} in seen else 'not found')"
    ),
    "connect to the host": ("import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nprint('escaped')"),
    "connect to the internet": ("import socket\nsocket.create_connection(('1.1.1.1', 53), 2)\nprint('escaped')"),
    "write to the system": "open('/usr/probe', 'w')\nprint('escaped')",
    "become root": "import os\nos.setuid(0)\nprint('escaped')",
    "see or kill the host's processes": "import os\nos.kill({pid}, 0)\nprint('escaped')",
    "start processes without end": (
        "import os, time\nfor n in range(300):\n    if os.fork() == 0:\n        time.sleep(60)\nprint('escaped')"
    ),
    "use memory without end": "x = []\nfor n in range(4096): x.append(bytearray(1 << 20))\nprint('escaped')",
    "fill the disk": (
        "for n in range(64):\n    with open(f'/tmp/{{n}}', 'wb') as f: f.write(bytes(8 << 20))\nprint('escaped')"
    ),
}


async def selftest() -> int:
    """Run every probe in a session of its own. Returns the number of those that were not contained."""
    escaped = 0
    home = Path.home()
    way = {Path(sys.prefix), Path(sys.base_prefix)}
    with tempfile.NamedTemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as server:
        os.environ["SANDBOX_SELFTEST_SECRET"] = "selftest-4f2a"
        filled = {
            "file": file.name,
            # What lies in the home and is not on the way to the interpreter, which has to be visible.
            "hidden": [str(path) for path in home.iterdir() if not any(p.is_relative_to(path) for p in way)],
            "secret": "selftest-4f2a",
            "port": server.getsockname()[1],
            "pid": os.getpid(),
        }
        async with Sandbox(size=2) as box:
            print(f"isolation: {box.isolation}")
            for name, probe in PROBES.items():
                async with box.session() as session:
                    result = await session.execute(probe.format(**filled))
                held = "escaped" not in result.stdout
                escaped += not held
                last = result.text.splitlines()[-1] if result.text else result.outcome
                print(f"{'contained' if held else 'ESCAPED':>9}  {name:<34} {last}")
            async with box.session() as session:
                alive = (await session.execute("6 * 7")).outcome is Outcome.OK
    print("all probes contained" if not escaped else f"{escaped} of {len(PROBES)} probes NOT contained")
    return escaped + (not alive)


def main() -> int:
    """Parse the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sandbox")
    parser.add_subparsers(dest="command", required=True).add_parser("selftest", help="try to get out")
    parser.parse_args()
    try:
        return 1 if asyncio.run(selftest()) else 0
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
