"""Isolation that is unavailable, and importing the package."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import KernelStartError, Limits, Sandbox, SandboxClosed, SandboxUnavailable, isolation, selftest
from sandbox.probes import Probe
from sandbox.zygote import Zygote


@pytest.fixture
def no_tiers_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without user namespaces and Landlock."""
    for tier in (2, 3):
        monkeypatch.setitem(isolation.NAMES, tier, "not here")
    start = Zygote.start

    async def refuse(zygote: Zygote, seconds: float) -> None:
        if zygote.tier in (2, 3):
            await zygote.close()
            raise KernelStartError("not here")
        await start(zygote, seconds)

    monkeypatch.setattr(Zygote, "start", refuse)


@pytest.mark.usefixtures("no_tiers_below_one")
async def test_without_any_isolation_it_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        async with Sandbox():
            pass
    message = str(caught.value)
    assert "install bubblewrap" in message and "unsafe_no_isolation=True" in message and "\n" not in message


async def test_bubblewrap_that_does_not_start_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend(monkeypatch, tmp_path, "exit 1")
    with pytest.raises(SandboxUnavailable, match="cannot be isolated"):
        async with Sandbox(prestart=0, tier=1):
            pass


async def test_bubblewrap_that_does_not_isolate_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # It runs its last arguments, and nothing else: what is asked for is there, but so is the host.
    _pretend(monkeypatch, tmp_path, 'eval "exec $4>&-"; while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    monkeypatch.setattr(isolation, "INSIDE", str(isolation.inside))
    with pytest.raises(SandboxUnavailable, match="cannot be isolated"):
        async with Sandbox(prestart=0, tier=1):
            pass


async def test_without_bubblewrap_the_next_tier_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with Sandbox(size=1, prestart=0) as box, box.session() as session:
        assert box.isolation == "namespaces (tier 2)"
        assert (await session.execute("6 * 7")).text == "42"


async def test_a_probe_that_gets_out_closes_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "PROBES", (Probe("escape", "print('escaped')"),))
    with pytest.raises(SandboxUnavailable, match="code could escape"):
        async with Sandbox(prestart=0, tier=1):
            pass


async def test_a_kernel_that_finds_a_way_out_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Zygote._world
    monkeypatch.setattr(Zygote, "_world", lambda zygote, parent: world(zygote, parent) | {"canaries": ["/usr/bin/env"]})
    with pytest.raises(SandboxUnavailable, match=r"a file of the host can be read \(/usr/bin/env\)"):
        async with Sandbox(prestart=0, tier=1):
            pass


async def test_what_is_preloaded_can_be_chosen() -> None:
    async with Sandbox(size=1, prestart=0, preload=("fractions",)) as box, box.session() as session:
        code = "import sys\n[name in sys.modules for name in ('fractions', 'sympy')]"
        assert (await session.execute(code)).text == "[True, False]"
        assert (await session.execute("import sympy\nsympy.factorint(6)")).text == "{2: 1, 3: 1}"
    with pytest.raises(SandboxUnavailable, match="No module named 'nowhere'"):
        async with Sandbox(preload=("nowhere",)):
            pass


async def test_no_kernel_loads_what_the_first_one_would_have_loaded() -> None:
    code = """
import sys, numpy, sympy
before, x = set(sys.modules), sympy.Symbol("x")
numpy.random.rand(), sympy.solve(x**2 - 4), sympy.simplify(x / x), sympy.integrate(sympy.sin(x)), sympy.N("pi", 30)
sorted(set(sys.modules) - before)
"""
    async with Sandbox(size=1, prestart=0) as box, box.session() as session:
        assert (await session.execute(code)).text == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0},
        {"prestart": -1},
        {"tier": 4},
        {"max_fault_rate": 0.0},
        {"tier": 1, "unsafe_no_isolation": True},
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Sandbox(**arguments)


def _pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    pretender = folder / "bwrap"
    pretender.write_text(f"#!/bin/sh\n{program}\n")
    pretender.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


async def test_unsafe_mode_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sandbox"):
        async with Sandbox(size=1, unsafe_no_isolation=True) as box, box.session() as session:
            assert box.isolation == "none"
            assert (await session.execute("6 * 7")).text == "42"
            assert (await session.execute("import os; os.getuid() != 0")).text == "True"
            assert (await session.execute("while True: pass", timeout=0.2)).outcome == "timeout"
    assert "WITHOUT ISOLATION" in caplog.text


async def test_a_python_of_roots_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "hidden_from_others", lambda: "/private")
    with pytest.raises(SandboxUnavailable, match=r"cannot reach Python in /private: run this as an ordinary user"):
        async with Sandbox(tier=3):
            pass


@pytest.mark.parametrize("name", ["output_chars", "printed_chars"])
def test_so_little_output_that_probes_would_not_be_understood(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Limits\.{name} must be at least 200 here, got 199"):
        Sandbox(Limits(**{name: 199}))


@pytest.mark.parametrize("name", ["output_chars", "printed_chars"])
async def test_a_probe_is_understood_where_there_is_little_output(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    escaping = Probe("get out", "print('escaped')\nraise OSError('x' * 1000)")
    monkeypatch.setattr(selftest, "PROBES", (escaping,))
    with pytest.raises(SandboxUnavailable, match="code could get out"):
        async with Sandbox(Limits(**{name: 200}), tier=2):
            pass


async def test_use_before_opening() -> None:
    with pytest.raises(SandboxClosed):
        async with Sandbox().session():
            pass


def test_import_is_light() -> None:
    code = "import sys, sandbox; print([m for m in ('zmq', 'jupyter_client', 'ipykernel') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
