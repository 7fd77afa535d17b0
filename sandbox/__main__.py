"""``python -m sandbox selftest``: try to get out, and say what held."""

from __future__ import annotations

import argparse
import asyncio
import sys

from sandbox import SandboxError


def main() -> int:
    """Parse the command line. Returns the exit status."""
    from sandbox import selftest

    parser = argparse.ArgumentParser(prog="python -m sandbox")
    command = parser.add_subparsers(dest="command", required=True).add_parser("selftest", help="try to get out")
    command.add_argument("--expect-tier", type=int, choices=(1, 2, 3), help="fail where isolation is weaker than this")
    command.add_argument("--tier", type=int, choices=(1, 2, 3), help="try this one only")
    arguments = parser.parse_args()
    try:
        return asyncio.run(selftest.full(arguments.expect_tier, arguments.tier))
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201 - a command line prints
        return 1


if __name__ == "__main__":
    sys.exit(main())
