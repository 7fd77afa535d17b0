"""Where isolation cannot be had, and how the package is imported."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import Sandbox, SandboxClosed, SandboxUnavailable


async def test_without_bubblewrap_it_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        async with Sandbox():
            pass
    message = str(caught.value)
    assert "install bubblewrap" in message and "unsafe_no_isolation=True" in message and "\n" not in message


async def test_bubblewrap_that_does_not_isolate_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretender = tmp_path / "bwrap"
    pretender.write_text("#!/bin/sh\nexit 1\n")
    pretender.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="cannot be isolated"):
        async with Sandbox(prestart=0):
            pass


async def test_unsafe_mode_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sandbox"):
        async with Sandbox(size=1, unsafe_no_isolation=True) as box, box.session() as session:
            assert box.isolation == "none"
            assert (await session.execute("6 * 7")).text == "42"
            assert (await session.execute("while True: pass", timeout=0.2)).outcome == "timeout"
    assert "WITHOUT ISOLATION" in caplog.text


async def test_use_before_opening() -> None:
    with pytest.raises(SandboxClosed):
        async with Sandbox().session():
            pass


def test_import_is_light() -> None:
    code = "import sys, sandbox; print([m for m in ('zmq', 'jupyter_client', 'ipykernel') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
