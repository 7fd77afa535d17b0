"""``python -m sandbox selftest``: try to get out, and say what held. ``soak``: random hostile cells, for long."""

from __future__ import annotations

import argparse
import asyncio
import sys

from sandbox import SandboxError

_SELFTEST = "Run every probe in a session of its own. The exit status is 1 if one gets out, or no tier holds here."
_SOAK = (
    "Run random hostile cells beside siblings. The exit status is 1 if anything is lost or left. Ctrl-C ends it after "
    "the round. It takes all cores, and up to 448 MB for each session that runs a cell."
)


def main() -> int:
    """Parse the command line. Returns the exit status."""
    from sandbox import selftest, soak_command

    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Checks of the sandbox on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    probing = commands.add_parser("selftest", help="try to get out, and say what held", description=_SELFTEST)
    probing.add_argument("--expect-tier", type=int, choices=(1, 2, 3), help="fail where isolation is weaker than this")
    probing.add_argument("--tier", type=int, choices=(1, 2, 3), help="try this one only")
    soaking = commands.add_parser(
        "soak", help="run random hostile cells beside siblings, and see what is lost", description=_SOAK
    )
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
