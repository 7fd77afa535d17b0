"""Obstacles to isolation are read from files of Linux, and reported with what to do."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import obstacles, users

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 22 0:22 / /sys rw,relatime - sysfs sysfs rw
"""


@pytest.mark.parametrize(
    ("more", "masked"),
    [
        ("", []),
        ("30 22 0:5 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw\n", ["/proc/kcore"]),
        ("30 22 0:21 /bus /proc/bus ro - proc proc rw\n31 22 0:30 / /proc/acpi ro - tmpfs t ro\n", None),
        ("30 22 0:5 / /procession rw - tmpfs tmpfs rw\n", []),
    ],
)
def test_parts_of_proc_that_are_masked(more: str, masked: list[str] | None) -> None:
    assert obstacles.masked_proc(MOUNTS + more) == (["/proc/bus", "/proc/acpi"] if masked is None else masked)


@pytest.mark.parametrize(
    ("ids", "enough"),
    [
        ("         0          0 4294967295\n", True),
        ("         0     100000      65536\n", True),
        ("         0       1000          1\n", False),
        ("         0       1000          1\n         1     100000      65536\n", True),
        ("         0     100000      65000\n", False),
        ("", False),
    ],
)
def test_whether_root_has_users_to_give(ids: str, enough: bool) -> None:
    assert users._has_our_ids(ids) is enough


@pytest.mark.parametrize(("letter", "number", "value"), [("-n", "RLIMIT_NOFILE", 70), ("-u", "RLIMIT_NPROC", 20)])
def test_low_limits_are_named(letter: str, number: str, value: int) -> None:
    code = (
        f"import resource; resource.setrlimit(resource.{number}, ({value}, {value}))\n"
        "from sandbox import obstacles; print(obstacles.limits())"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert f"ulimit {letter} {value} " in done.stdout
    assert resource.getrlimit(getattr(resource, number))[1] != value
