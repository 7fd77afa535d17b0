"""The pool of killable processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from start_agent.errors import GradingError, MissingExtraError
from start_agent.grading import GraderPool, Reason, process
from start_agent.grading import pool as pool_module

HOSTILE = "9^{9^{9^{9}}}"


def pids(pool: GraderPool) -> list[int]:
    return [slot._worker.pid for slot in pool._slots if slot._worker is not None]


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_hung_process_is_replaced_and_blocks_no_other() -> None:
    async with GraderPool(2, seconds=2) as pool:
        hung = asyncio.create_task(pool.grade_math(HOSTILE, "\\sqrt{2}"))
        started = time.monotonic()
        answers = await asyncio.gather(
            *(pool.grade_math(f"\\sqrt{{{n * n * 2}}}", f"{n}\\sqrt2") for n in range(2, 40))
        )
        assert all(verdict.correct for verdict in answers)
        assert not hung.done() or time.monotonic() - started > 2
        verdict = await hung
        assert (verdict.correct, verdict.reason, verdict.parsed) == (False, Reason.TIMEOUT, HOSTILE)
        assert (await pool.grade_math("\\sqrt{8}", "2\\sqrt2")).correct
        before = pids(pool)
    assert not any(map(exists, before))


async def test_a_killed_process_is_no_wrong_answer() -> None:
    async with GraderPool(1, seconds=60) as pool:
        (first,) = pids(pool)
        task = asyncio.create_task(pool.grade_math("\\sqrt{8}+x+y", "2\\sqrt2+y+x"))
        await asyncio.sleep(0.01)
        os.kill(first, signal.SIGKILL)
        assert (await task).correct
        assert (await pool.grade_math("\\sqrt{18}", "3\\sqrt2")).correct


async def test_an_answer_that_breaks_its_process_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async with GraderPool(1) as pool:
        monkeypatch.setattr(process.Worker, "_read", lambda self, seconds: Reason.CRASHED)
        with pytest.raises(GradingError, match="did not start"):  # the replacement crashes as it starts: no verdict
            await pool.grade_math("\\sqrt{8}", "2\\sqrt2")
        monkeypatch.undo()
        monkeypatch.setattr(process.Worker, "ask", lambda self, *rest: Reason.CRASHED)
        verdict = await pool.grade_math("\\sqrt{8}", "2\\sqrt2")
    assert (verdict.correct, verdict.reason, verdict.parsed) == (False, Reason.CRASHED, "\\sqrt{8}")


async def test_processes_are_started_as_needed_and_retire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_MAX_REQUESTS", 3)
    async with GraderPool(3) as pool:
        for n in range(2, 10):
            assert (await pool.grade_math(f"\\sqrt{{{n * n * 2}}}", f"{n}\\sqrt2")).correct
        assert len(pids(pool)) == 1 and pool.replaced == 2


async def test_plain_numbers_need_no_process_and_thousands_go_through() -> None:
    async with GraderPool(1) as pool:
        started = time.monotonic()
        verdicts = await asyncio.gather(*(pool.grade_math(f"\\boxed{{{n}}}", str(n)) for n in range(5000)))
        assert all(verdict.correct for verdict in verdicts) and time.monotonic() - started < 10
        started = time.monotonic()
        verdicts = await asyncio.gather(*(pool.grade_math(f"{n}\\pi", f"\\pi \\cdot {n}") for n in range(2, 302)))
        assert all(verdict.correct for verdict in verdicts)
        assert time.monotonic() - started < 20  # about 2 s; 300 in 20 s are 900 a minute on a very busy machine


async def test_cancelled_callers_and_closing_leave_nothing() -> None:
    pool = GraderPool(1, seconds=60)
    async with pool:
        tasks = [asyncio.create_task(pool.grade_math(HOSTILE, "\\sqrt{2}")) for _ in range(3)]
        await asyncio.sleep(0.2)
        tasks[2].cancel()
        (pid,) = pids(pool)
        started = time.monotonic()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - started < 10 and not exists(pid)
    assert isinstance(results[0], GradingError) and isinstance(results[1], GradingError)
    assert isinstance(results[2], asyncio.CancelledError)
    with pytest.raises(GradingError, match="not open"):
        await pool.grade_math("1", "1")


async def test_a_cancelled_caller_gives_its_process_back() -> None:
    async with GraderPool(1, seconds=1) as pool:
        task = asyncio.create_task(pool.grade_math(HOSTILE, "\\sqrt{2}"))
        await asyncio.sleep(0.2)
        task.cancel()
        assert (await pool.grade_math("\\sqrt{8}", "2\\sqrt2")).correct


async def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"missing": "math_verify"}\'\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(MissingExtraError, match=r"'math-verify' is not installed.*start-agent\[math\]"):
        async with GraderPool(1):
            pass
    python.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(GradingError, match="exit status 3"):
        async with GraderPool(1):
            pass
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(GradingError, match="cannot start"):
        async with GraderPool(1):
            pass


def test_the_worker_ends_with_its_input_and_keeps_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "swordfish")
    worker = process.Worker()
    try:
        assert b"swordfish" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert worker._process.stdin is not None
        worker._process.stdin.close()
        assert worker._process.wait(10) == 0 and not worker.alive
    finally:
        worker.close()


def test_a_hung_worker_outlives_a_killed_host_by_seconds_only() -> None:
    code = (
        "from start_agent.grading import process\n"
        "worker = process.Worker()\n"
        "print(worker.pid, flush=True)\n"
        f"worker.ask({HOSTILE!r}, '2', 1)"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    time.sleep(0.3)
    host.kill()
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + 20
    while exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not exists(pid)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="size must be"):
        GraderPool(0)
    with pytest.raises(ValueError, match="seconds must be"):
        GraderPool(seconds=0)


def test_import_is_light() -> None:
    code = "import sys, start_agent.grading, start_agent.tasks as t; print([m for m in %r if m in sys.modules])"
    names = ("sympy", "math_verify", "datasets", "torch", "zmq", "numpy")
    done = subprocess.run([sys.executable, "-c", code % (names,)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
