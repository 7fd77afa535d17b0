"""Output of threads of earlier cells is not part of the running cell's output."""

from __future__ import annotations

import pytest

from sandbox import Outcome, Sandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)

_WAIT = "import time\nwhile ended.is_set() is False: time.sleep(0.001)\nprint('mine')"
_LATE_WRITERS = {
    "thread": "threading.Thread(target=work).start()",
    "raw": "import _thread\nstarted = threading.Event()\n"
    "_thread.start_new_thread(lambda: (started.set(), work()), ())\nstarted.wait()",
    "timer": "threading.Timer(0, lambda: begin.wait() and threading.Timer(0, work).start()).start()",
    "pool": "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n_ = pool.submit(work)",
    "queued": "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"
    "_ = pool.submit(begin.wait), pool.submit(work)",
    "stream": "import sys\nout = sys.stdout\nthreading.Thread(target=work, args=(out.write,)).start()",
    "error": "import sys\nthreading.Thread(target=work, args=(lambda text: sys.stderr.write(text),)).start()",
}


@pytest.mark.parametrize("writer", list(_LATE_WRITERS.values()), ids=list(_LATE_WRITERS))
async def test_earlier_threads_do_not_speak_into_a_cell(box: Sandbox, writer: str) -> None:
    work = (
        "import threading\nbegin, ended = threading.Event(), threading.Event()\n"
        "def work(write=print):\n    begin.wait()\n    for _ in range(9): write('old')\n    ended.set()\n"
    )
    async with box.session() as session:
        assert (await session.execute(f"{work}{writer};")).outcome is Outcome.OK
        result = await session.execute(f"begin.set()\n{_WAIT}")
        assert (result.text, result.late.count("old")) == ("mine", 9)


async def test_a_thread_with_the_number_of_an_earlier_one_speaks_in_its_own_cell(box: Sandbox) -> None:
    start = "import _thread, threading, time\nbegin, started = threading.Event(), threading.Event()\n"
    start += "_thread.start_new_thread(lambda: (started.set(), begin.wait(), print('old')), ())\nstarted.wait();"
    again = "begin.set()\nwhile _thread._count(): time.sleep(0.001)\n"
    again += (
        "ended = threading.Event()\n_thread.start_new_thread(lambda: (print('new'), ended.set()), ())\nended.wait();"
    )
    async with box.session() as session:
        assert (await session.execute(start)).text == ""
        result = await session.execute(again)
        assert (result.text, result.late) == ("new", "old\n")


async def test_a_pools_new_tasks_speak_in_the_cell_that_gives_them(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)")
        for word in ("one", "two"):
            result = await session.execute(f"pool.submit(print, {word!r}).result()")
            assert (result.text, result.late) == (word, "")
        threads = "import threading\nt = threading.Thread(target=print, args=('three',))\nt.start()\nt.join()"
        assert (await session.execute(threads)).text == "three"
