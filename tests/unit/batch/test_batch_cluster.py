"""Requests to a Ray cluster, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from start_agent import fields
from start_agent.batch import RayOptions, cluster
from start_agent.batch.ray import RayExecutor
from start_agent.errors import BatchError, ConfigError, InputError, MissingExtraError


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a cluster of so many machines and GPUs."""

    def make(number: int, gpus: int) -> None:
        nodes = [{"Alive": True}] * number + [{"Alive": False}]
        ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0, "GPU": float(gpus)}, nodes=lambda: nodes)
        monkeypatch.setattr(cluster, "import_ray", lambda: ray)

    return make


@pytest.mark.parametrize(
    ("there", "wanted", "needed", "found"),
    [
        ((3, 0), "auto", 4, (3, 0)),  # no GPUs: a worker for each machine
        ((3, 0), "5", 1, (5, 0)),
        ((2, 16), "auto", 4, (4, 4)),
        ((2, 16), "auto", 1, (16, 1)),
        ((2, 16), "auto", 0, (2, 0)),  # a server's engine wants none of them
        ((2, 16), "3", 4, (3, 4)),
    ],
)
def test_how_many_workers(
    machines: Any, there: tuple[int, int], wanted: str, needed: int, found: tuple[int, int]
) -> None:
    machines(*there)
    assert cluster.count_workers(wanted, needed) == found


@pytest.mark.parametrize(("wanted", "needed"), [("5", 4), ("auto", 32)])
def test_too_few_gpus_are_said_before_anybody_waits_for_them(machines: Any, wanted: str, needed: int) -> None:
    machines(2, 16)
    with pytest.raises(InputError, match=f"^--ray {wanted}: each worker needs {needed} GPUs, but the cluster has 16$"):
        cluster.count_workers(wanted, needed)


@pytest.mark.parametrize("wanted", ["0", "-1", "many", "2x", ""])
def test_a_number_or_auto(wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"^--ray: "):
        fields.build(RayOptions, {"ray": wanted})


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'start-agent\[ray\]'"):
        cluster.import_ray()


@pytest.mark.slow
def test_an_unreachable_address_is_a_one_line_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "start_agent", "batch", "--task", "pocket", "--limit", "1", "--ray", "2"]
    command += ["--ray-address", "127.0.0.1:1", "--output-dir", "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "cannot use the Ray cluster at 127.0.0.1:1" in done.stderr


class _RayError(Exception):
    pass


@pytest.mark.parametrize("error", [ConnectionError, _RayError])
def test_a_cluster_that_asks_for_a_token_gets_one_line_that_says_how(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(**options: Any) -> None:
        raise error("Failed to connect to Ray cluster")

    ray = SimpleNamespace(init=refuse, exceptions=SimpleNamespace(RayError=_RayError))
    monkeypatch.setattr(cluster, "import_ray", lambda settings: ray)
    monkeypatch.setattr(cluster, "_probe", lambda address: None)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    words = "Failed to connect .*; if it needs a token, set RAY_AUTH_MODE=token"
    with pytest.raises(InputError, match=words), cluster.connect("10.0.0.1:6379"):
        pass
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(InputError, match=r"Failed to connect to Ray cluster$"), cluster.connect("10.0.0.1:6379"):
        pass


class _OtherError(_RayError):
    """Such as ``OutOfMemoryError``, ``NodeDiedError``, ``RuntimeEnvSetupError``: of no actor, and of no task."""


def _unable() -> Any:
    async def failing(*arguments: Any) -> Any:
        raise _OtherError("the machine has no memory left")

    return SimpleNamespace(open=SimpleNamespace(remote=failing))


async def test_workers_that_ray_cannot_begin_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    ray = SimpleNamespace(
        exceptions=SimpleNamespace(RayError=_RayError, RayTaskError=type("RayTaskError", (_RayError,), {})),
        remote=lambda kind: SimpleNamespace(options=lambda **named: SimpleNamespace(remote=lambda executor: _unable())),
        kill=killed.append,
    )
    monkeypatch.setattr("start_agent.batch.ray.import_ray", lambda: ray)
    with pytest.raises(BatchError, match=r"all 2 workers have died 2 times, .* no memory left"):
        async with RayExecutor(lambda: pytest.fail("no worker"), workers=2, slots=1, restarts=1):
            pass
    assert len(killed) == 4
