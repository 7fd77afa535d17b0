"""Cores: the default number of threads of a model, and its reserved cores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest

from start_agent.engines.affinity import default_threads, own_cores, reserved
from start_agent.errors import ConfigError


def machine(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """Another model, with default options."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 3), (8, 7), (16, 14), (64, 56)])
def test_a_core_in_eight_is_left_to_everything_else(monkeypatch: pytest.MonkeyPatch, cores: int, threads: int) -> None:
    machine(monkeypatch, cores)
    assert default_threads() == threads
    assert own_cores(threads) == (frozenset(range(threads)) if threads < cores else frozenset())


def test_a_model_of_as_many_threads_as_cores_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    assert own_cores(3) == {0, 1, 2}
    assert own_cores(4) == own_cores(5) == frozenset()


def test_whoever_sets_the_variable_shares_out_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert default_threads() == 7
    assert own_cores(2) == frozenset()
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    with pytest.raises(ConfigError, match=r"OMP_NUM_THREADS=4,2: set it to a number of threads"):
        default_threads()


def test_this_process_and_its_children_keep_off_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    taken = own_cores(1)  # so that on three cores and more a second engine could have one, too
    waiting = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    processes = []
    for _ in range(2):
        processes.append(subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert processes[-1].stdout is not None
        processes[-1].stdout.readline()

    def where() -> list[set[int]]:
        return [os.sched_getaffinity(process.pid) for process in processes]

    end = threading.Event()
    resting = threading.Thread(target=end.wait)
    resting.start()
    try:
        with reserved(taken):
            late = subprocess.run(
                [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True, text=True
            )
            assert late.stdout.strip() == str(before - taken)
            assert where() == [before - taken] * 2
            threads = psutil.Process().threads()
            assert len(threads) > 1
            assert all(os.sched_getaffinity(thread.id) == before - taken for thread in threads)
            with reserved(own_cores(1)):  # as a second engine would
                assert where() == [before - taken] * 2
            assert where() == [before - taken] * 2
        assert where() == [before] * 2
        assert os.sched_getaffinity(0) == before
    finally:
        end.set()
        resting.join()
        for process in processes:
            process.communicate()
