"""A run on a real local Ray cluster ends with the records of a run without it, even if workers die."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from start_agent.batch import BatchOptions, Progress, RunDirectory, run_at
from start_agent.batch.cluster import connect, count_workers
from start_agent.batch.ray import OpenExecutor, RayExecutor
from start_agent.batch.store import RECORDS
from start_agent.errors import BatchError, InputError
from start_agent.grading.votes import math_value
from start_agent.strategies.majority import Majority, MajorityOptions
from tests.support.batches import CONFIG, by_seed, problems, run_scripted, stable
from tests.support.ports import free_port
from tests.support.processes import naming
from tests.support.waiting import wait_for_exits, wait_until
from tests.support.workers import breaking, dying, impossible, voting

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's, which does not wait for what it has started
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where Ray keeps its sockets: a short path, that names all processes of the cluster."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_TMPDIR", str(folder))
        import ray  # noqa: F401 - before its address is set, like a process that has used vLLM

        with connect():
            yield


@pytest.fixture
def files(tmp_path: Path) -> Path:
    path = tmp_path / "files"
    path.mkdir()
    return path


@contextmanager
def running_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a running cluster that requires a token."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as name:
        for variable, value in (("MODE", "token"), ("TOKEN", secrets.token_hex(32))):
            monkeypatch.setenv(f"RAY_AUTH_{variable}", value)
        port = free_port()
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head"]
        start += ["--port", str(port), "--include-dashboard", "false", "--num-cpus", "2", "--temp-dir", name]
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        try:
            with (Path(name) / "said").open("w+") as said:  # a pipe would stay open as long as the cluster
                code = subprocess.run(start, env=environment, stdout=said, stderr=said, check=False).returncode
                said.seek(0)
                assert code == 0, said.read()
            yield f"127.0.0.1:{port}"
        finally:
            for number in naming(Path(name)):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            wait_for_exits(lambda: naming(Path(name)))


def test_the_command_on_a_cluster_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--task pocket --limit 4 --threads 1 --kernels 2 --concurrency 4 --ray 2"
    command = [sys.executable, "-m", "start_agent", "batch", *options.split(), "--output-dir", str(tmp_path / "run")]
    with running_cluster(monkeypatch) as address:
        command += ["--ray-address", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(stable(tmp_path / "run")) == 4


async def run_over_workers(path: Path, open_executor: OpenExecutor, count: int = 60, **options: Any) -> Progress:
    executor = RayExecutor(open_executor, workers=2, slots=4, **options)
    async with executor:
        with RunDirectory.open(path, CONFIG) as directory:
            return await run_at(executor, problems(count), directory, BatchOptions(concurrency=8))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def listening(folder: Path) -> set[str]:
    """The addresses at which the processes of the cluster listen."""
    found = []
    for number in naming(folder):
        with suppress(psutil.NoSuchProcess):  # of an actor that is on its way out
            process = psutil.Process(number)
            for one in (process, *process.children(recursive=True)):
                found += one.net_connections("tcp")
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


async def test_two_workers_do_what_one_process_does(tmp_path: Path, cluster: None, folder: Path, files: Path) -> None:
    progress = await run_over_workers(tmp_path / "ray", partial(dying, files, 10))
    await run_scripted(tmp_path / "plain", problems(60))
    assert stable(tmp_path / "ray") == stable(tmp_path / "plain")
    assert (progress.done, progress.failed, progress.faults, progress.in_flight) == (60, 0, {}, 0)
    assert progress.right == sum(record["correct"] for record in stable(tmp_path / "plain").values())
    assert {address.removeprefix("::ffff:") for address in listening(folder)} == {"127.0.0.1"}


async def test_the_votes_of_two_workers_are_those_of_one_process(tmp_path: Path, cluster: None) -> None:
    await run_over_workers(tmp_path / "ray", partial(voting, 5), 20)
    strategy = Majority(MajorityOptions(votes=5))
    await run_scripted(tmp_path / "plain", problems(20), script=by_seed, strategy=strategy, value=math_value)
    assert stable(tmp_path / "ray") == stable(tmp_path / "plain")
    assert {len(record["strategy"]["traces"]) for record in stable(tmp_path / "ray").values()} > {3}


@pytest.mark.parametrize(("way", "deaths"), [(dying, 1), (dying, 3), (breaking, 1)])
async def test_a_worker_that_dies_loses_nothing(
    tmp_path: Path, cluster: None, files: Path, caplog: pytest.LogCaptureFixture, way: Any, deaths: int
) -> None:
    for number in range(deaths):
        (files / str(number)).touch()
    with caplog.at_level(logging.WARNING):
        progress = await run_over_workers(tmp_path / "ray", partial(way, files, 10), retries=8)
    await run_scripted(tmp_path / "plain", problems(60))
    assert names(files) == []
    assert stable(tmp_path / "ray") == stable(tmp_path / "plain")
    assert (progress.done, progress.failed) == (60, 0)
    assert set(progress.faults) <= {"WorkerError", "EngineError"} and progress.faults
    assert len(caplog.messages) == deaths and "restarting it (at most 3 more times)" in caplog.messages[0]


async def test_workers_that_die_for_ever_end_the_run_in_words(tmp_path: Path, cluster: None, files: Path) -> None:
    for number in range(50):
        (files / str(number)).touch()
    with pytest.raises(BatchError, match=r"all 2 workers have died 2 times.*run the same command again"):
        await run_over_workers(tmp_path / "ray", partial(dying, files, 10), restarts=1, retries=20)
    kept = stable(tmp_path / "ray")
    assert 0 < len(kept) < 60
    progress = await run_scripted(tmp_path / "ray", problems(60))
    assert (progress.stored, progress.done) == (len(kept), 60 - len(kept))


async def test_a_wrong_option_is_said_once_as_it_is_without_workers(tmp_path: Path, cluster: None) -> None:
    with pytest.raises(InputError, match=r"^there is no such model$"):
        await run_over_workers(tmp_path / "ray", impossible)


def test_as_many_workers_as_the_cluster_has_room_for(cluster: None) -> None:
    assert count_workers("auto", 8) == (1, 0)  # one machine, and no GPU to share out
    assert count_workers("3", 0) == (3, 0)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()).startswith("ray::Worker")
    except psutil.NoSuchProcess:  # kernels come and go meanwhile
        return False


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.nightly)])
def test_the_command_with_a_worker_killed(tmp_path: Path, engine: str) -> None:
    options = f"--engine {engine} --task pocket --limit 24 --threads 1 --kernels 2 --concurrency 8 --kv-cache-gib 0.5"
    command = [sys.executable, "-m", "start_agent", "batch", *options.split(), "--output-dir"]
    plain = subprocess.run([*command, tmp_path / "plain"], capture_output=True, text=True, timeout=200, check=False)
    assert plain.returncode == 0, plain.stderr
    records = tmp_path / "ray" / RECORDS
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as name:
        environment = os.environ | {"TMPDIR": name, "RAY_TMPDIR": name, "OMP_NUM_THREADS": "1"}
        over = [*command, str(tmp_path / "ray"), "--ray", "2"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(over, env=environment, **pipes) as run:
            wait_until(lambda: records.exists() and records.stat().st_size > 0, run.pid)
            family = psutil.Process(run.pid).children(recursive=True)
            workers = list(filter(_is_worker, family))
            workers[0].send_signal(signal.SIGKILL)
            said = run.communicate(timeout=200)
        assert run.returncode == 0, said
        wait_for_exits(lambda: naming(Path(name)))  # Ray's processes go at their own pace
        assert not psutil.wait_procs(family, timeout=30)[1]  # the killed worker's engine core among them
    again = subprocess.run([*command, tmp_path / "plain", "--ray", "2"], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "nothing is pending" in again.stderr  # the same run, however it is carried out
    assert len(workers) == 2
    assert "restarting it" in said[1]
    assert stable(tmp_path / "ray") == stable(tmp_path / "plain")
