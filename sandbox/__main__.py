"""The commands ``python -m sandbox selftest`` (escape attempts) and ``soak`` (a long run of random hostile cells)."""

from __future__ import annotations

import argparse
import asyncio
import sys

from sandbox import SandboxError

_SELFTEST = "Run each probe in its own session. Exits with 1 if a probe escapes, or if no tier works on this machine."
_SOAK = (
    "Run random hostile cells next to ordinary sessions (siblings). Exits with 1 if a sibling loses state or anything "
    "is left behind. Ctrl-C stops after the current round. Uses all cores, and up to 448 MB per session that runs a "
    "cell."
)


def main() -> int:
    """Parse the command line. Returns the exit status."""
    from sandbox import selftest, soak_command

    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Checks the sandbox on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    probing = commands.add_parser("selftest", help="attempt to escape, and report each attempt", description=_SELFTEST)
    probing.add_argument("--expect-tier", type=int, choices=(1, 2, 3), help="fail if isolation is weaker than this")
    probing.add_argument("--tier", type=int, choices=(1, 2, 3), help="try only this tier")
    soaking = commands.add_parser("soak", help="run random hostile cells next to ordinary sessions", description=_SOAK)
    soak_command.add_options(soaking)
    arguments = parser.parse_args()
    try:
        if arguments.command == "soak":
            return asyncio.run(soak_command.command(arguments))
        return asyncio.run(selftest.full(arguments.expect_tier, arguments.tier))
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201 - a command line prints
        return 1
    except KeyboardInterrupt:
        print("sandbox: interrupted", file=sys.stderr)  # noqa: T201
        return 130


if __name__ == "__main__":
    sys.exit(main())
