"""``python -m sandbox selftest``: try to get out, and say what held. ``soak``: random hostile cells, for long."""

from __future__ import annotations

import argparse
import asyncio
import sys

from sandbox import SandboxError


def main() -> int:
    """Parse the command line. Returns the exit status."""
    from sandbox import selftest, soak_command

    parser = argparse.ArgumentParser(prog="python -m sandbox")
    commands = parser.add_subparsers(dest="command", required=True)
    probing = commands.add_parser("selftest", help="try to get out")
    probing.add_argument("--expect-tier", type=int, choices=(1, 2, 3), help="fail where isolation is weaker than this")
    probing.add_argument("--tier", type=int, choices=(1, 2, 3), help="try this one only")
    soaking = commands.add_parser("soak", help="run random hostile cells beside siblings, and see what is lost")
    soak_command.add_options(soaking)
    arguments = parser.parse_args()
    try:
        if arguments.command == "soak":
            return asyncio.run(soak_command.command(arguments))
        return asyncio.run(selftest.full(arguments.expect_tier, arguments.tier))
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201 - a command line prints
        return 1


if __name__ == "__main__":
    sys.exit(main())
