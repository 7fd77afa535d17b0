"""Cells and their outputs behave as in a notebook."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox import Limits, Sandbox
from sandbox.errors import SandboxUnavailable

FLAGS = set(Path("/proc/cpuinfo").read_text().split())

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(size=1) as sandbox:
        yield sandbox


async def run(box: Sandbox, *cells: str) -> list[str]:
    async with box.session() as session:
        return [(await session.execute(cell)).text for cell in cells]


async def test_lines_that_are_written_over_end_as_a_terminal_shows_them(box: Sandbox) -> None:
    """Of a progress bar there is its last state, however many there were, and on whichever stream."""
    bar = "import sys\nfor n in range(5_000): print(f'\\r{n} {\"#\" * 40}', end='', file=sys.stderr)\nprint('\\nend')"
    assert await run(box, bar, "print('12345\\rab')") == [f"4999 {'#' * 40}\nend", "ab345"]


async def test_what_notebooks_keep(box: Sandbox) -> None:
    """The last values, the cells so far and nothing else, a module that a cell has written, tasks, help."""
    assert await run(box, "6 * 7", "_ + 1", "__, _", "len(In)") == ["42", "43", "(42, 43)", "5"]
    assert await run(box, "Out", "7", "_2 + Out[2]", "x = 1", "%who") == ["{}", "7", "14", "", "x\t "]
    write, use = "open('mine.py', 'w').write('y = 3');", "import mine\nmine.y"
    assert await run(box, write, use) == ["", "3"]
    assert await run(box, "import other", "open('other.py', 'w').write('y = 4');", "import other\nother.y") == [
        'Traceback (most recent call last):\n  File "<cell 1>", line 1\n    import other\n'
        "ModuleNotFoundError: No module named 'other'",
        "",
        "4",
    ]
    task = "import asyncio\nasync def f(): return 5\nt = asyncio.create_task(f())"
    assert await run(box, task, "t.result()", "await t") == ["", "5", "5"]
    assert await run(box, "async def f(): return 6\nimport asyncio\nasyncio.run(f())") == ["6"]
    assert await run(box, "def f(a, *, b=1): 'Text.'", "f?") == ["", "Signature: f(a, *, b=1)"]


async def test_streams_are_real_and_new_in_each_cell(box: Sandbox) -> None:
    """Code may wrap them, replace them, close them: what it prints is in its own cell, and the next has new ones."""
    for replaced in (
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
        "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')",
        "sys.stdout = os.fdopen(1, 'w')",
        "sys.stdout = open(os.dup(1), 'w')",
        "sys.stdout = sys.__stdout__",
        "sys.stdout.reconfigure(encoding='utf-8', line_buffering=True)",
        "assert sys.stdout.mode == 'w'",
        "sys.stdin = io.TextIOWrapper(sys.stdin.buffer); assert sys.stdin.read() == ''",
    ):
        cells = (
            f"import io, os, sys\n{replaced}\nprint('one')",
            "print('two')",
            "sys.stdout.close()",
            "print('end')",
        )
        assert await run(box, *cells) == ["one", "two", "", "end"], replaced


async def test_output_of_c_is_in_its_place(box: Sandbox) -> None:
    """C buffers lines of its own."""
    cell = "import ctypes\nlibc = ctypes.CDLL(None)\nprint(1)\nlibc.puts(b'2')\nprint(3)\nlibc.printf(b'4');"
    assert await run(box, cell, "5") == ["1\n2\n3\n4", "5"]


async def test_long_numbers_have_no_limit(box: Sandbox) -> None:
    """Python's own, of 4,300 digits, is lifted."""
    assert await run(box, "len(str(10 ** 5000)), int('9' * 5000) % 10") == ["(5001, 9)"]


async def test_late_output_of_a_thread_is_marked(box: Sandbox) -> None:
    """It is no part of the cell that happens to run; what a pool's threads do for that cell is."""
    start = (
        "import threading\ngo = threading.Event()\ndef f():\n    go.wait()\n    print('late')\n"
        "t = threading.Thread(target=f)\nt.start()"
    )
    pool = "import concurrent.futures as c\npool = c.ThreadPoolExecutor(1)\npool.submit(print, 1).result()"
    async with box.session() as session:
        await session.execute(start)
        result = await session.execute("go.set()\nt.join()\nprint('own')")
        assert (result.text, result.late) == ("own", "late\n")
        assert (await session.execute("1")).late == ""
        await session.execute(pool)
        assert (await session.execute("pool.submit(print, 2).result()")).text == "2"


async def test_errors_show_what_they_came_from(box: Sandbox) -> None:
    """Causes and errors of a group are shown like the model's own; frames inside of libraries are not."""
    handled = "def f():\n    1 / 0\ntry:\n    f()\nexcept ZeroDivisionError as error:\n    raise ValueError('bad')"
    first, link, last = (await run(box, handled + " from error"))[0].split("\n\n")
    assert first.endswith('  File "<cell 1>", line 2, in f\n    1 / 0\nZeroDivisionError: division by zero')
    assert "direct cause" in link
    assert last.endswith("from error\nValueError: bad")
    assert "During handling" in (await run(box, handled))[0]
    assert "ZeroDivisionError" not in (await run(box, handled + " from None"))[0].partition("raise")[0]
    tasks = (
        "import asyncio\nasync def f(n): return 1 / n\n"
        "async with asyncio.TaskGroup() as group:\n    for n in (0, 1): group.create_task(f(n))"
    )
    assert "| ZeroDivisionError: division by zero" in (await run(box, tasks))[0]
    chain = (
        "e = None\nfor n in range(50):\n    try:\n        raise ValueError(n) from e\n    except ValueError as error:\n"
    )
    assert (await run(box, chain + "        e = error\nraise e"))[0].count("ValueError: ") == 4
    (library,) = await run(box, "import importlib.metadata\nimportlib.metadata.version('no such package')")
    assert library.count("Traceback") == 1
    assert (await run(box, "breakpoint()"))[0].endswith("BdbQuit")
    assert await run(box, "%tb") == ["UsageError: no traceback is kept"]


async def test_commands_find_the_python_of_the_cells(box: Sandbox) -> None:
    """Whatever else is installed."""
    assert await run(box, "import sys\n!python -c 'import sys; print(sys.prefix == \"{sys.prefix}\")'") == ["True"]


async def test_libraries_for_notebooks_say_nothing_of_themselves(box: Sandbox) -> None:
    """Neither of fonts, backends and widgets nor, in many lines, of progress."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    plot = "%matplotlib inline\nimport matplotlib.pyplot as plt\nprint('inline' in plt.get_backend())"
    assert await run(box, plot, "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\n2") == [
        "True",
        "<Figure size 640x480 with 1 Axes>\n2",
    ]
    assert await run(box, "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\n2") == ["2"]
    bars = (
        "from tqdm.auto import trange\n"
        "for i in trange(3, bar_format='{n} of 3'):\n    for j in trange(2, bar_format='{n} of 2', leave=False): pass"
    )
    assert await run(box, bars) == ["3 of 3"]


async def test_the_machine_is_as_programs_expect_it(box: Sandbox) -> None:
    """A user with a name, a name for oneself in the network, memory and processors."""
    who = "import getpass, grp, os, pwd\n"
    who += "pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name, getpass.getuser()"
    assert await run(box, who, "pwd.getpwuid(os.getuid()).pw_dir == os.path.expanduser('~')") == [
        "('sandbox', 'sandbox', 'sandbox')",
        "True",
    ]
    assert await run(box, "import socket\nsocket.gethostbyname('localhost')") == ["'127.0.0.1'"]
    serve = """
import http.server, threading, urllib.request
server = http.server.HTTPServer(("localhost", 0), http.server.SimpleHTTPRequestHandler)
server.RequestHandlerClass.log_message = lambda *a: None
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://localhost:{server.server_port}/").status)
server.shutdown()
"""
    assert await run(box, serve) == ["200"]
    memory = (
        "import psutil\nm = psutil.virtual_memory()\n0 < m.available <= m.total, psutil.cpu_percent(), psutil.pids()"
    )
    assert await run(box, memory, "psutil.swap_memory().total >= 0, psutil.cpu_count() > 0") == [
        "(True, 0.0, [1])",
        "(True, True)",
    ]


async def test_nothing_of_the_hosts_names_is_there(box: Sandbox) -> None:
    """The lists of users and hosts are the sandbox's own."""
    names = "import grp, pwd\n{u.pw_name for u in pwd.getpwall()}, {g.gr_name for g in grp.getgrall()}"
    assert await run(box, names) == ["({'root', 'sandbox'}, {'root', 'sandbox'})"]
    assert await run(box, "print(open('/etc/hosts').read())") == ["127.0.0.1 localhost sandbox"]


async def test_each_cell_draws_on_figures_of_its_own(box: Sandbox) -> None:
    """Nothing of a cell's plot is in the next one's, and no warning comes of many; a figure that has a name stays."""
    pytest.importorskip("matplotlib")
    draw = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2]);"
    count = "len(plt.get_fignums()), len(plt.gca().lines), len(ax.lines)"
    assert await run(box, *[draw] * 25, count) == [""] * 25 + ["(0, 0, 1)"]
    fake = "import sys, types\nsys.modules['matplotlib.pyplot'] = types.ModuleType('matplotlib.pyplot')\n1"
    assert await run(box, fake) == ["1"]


async def test_numba_can_cache_what_a_cell_defines(box: Sandbox) -> None:
    """Or of a module that a cell has written."""
    pytest.importorskip("numba")
    function = "import numba\n@numba.njit(cache=True)\ndef f(x): return x + 1\n"
    write = f"open('compiled.py', 'w').write({function!r});"
    stored = "sum(f.stats.cache_misses.values())"
    assert await run(box, f"{function}f(1), {stored}", write, "from compiled import f\nf(2)", stored) == [
        "(2, 1)",
        "",
        "3",
        "1",
    ]


async def test_torch_says_nothing_of_the_machine() -> None:
    """It cannot read /proc/cpuinfo, which is neither to be seen in what it prints nor in how fast it is."""
    pytest.importorskip("torch")
    async with Sandbox(Limits(seconds=60, memory_bytes=4 << 30, memory_in_sum_bytes=4 << 30), size=1) as box:
        first = "import torch\nprint((torch.ones(2) + 1).tolist())"
        conv = "torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 9, 9)).shape"
        *texts, capability = await run(box, first, conv, "torch.backends.cpu.get_cpu_capability()")
    assert texts == ["[2.0, 2.0]", "torch.Size([1, 1, 7, 7])"]
    assert capability != "'DEFAULT'" or not {"avx2", "fma"} <= FLAGS


async def test_libraries_are_quiet_without_isolation_of_processes() -> None:
    """In tier 3: of folders for settings that are another's, of locks between processes that cannot be."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            box = await stack.enter_async_context(Sandbox(size=1, tier=3))
        except SandboxUnavailable as reason:
            pytest.skip(str(reason))
        for name in ("matplotlib.pyplot", "joblib", "IPython.paths"):
            if importlib.util.find_spec(name.partition(".")[0]):
                assert await run(box, f"import {name}") == [""]
        if importlib.util.find_spec("threadpoolctl"):
            assert await run(box, "import numpy, threadpoolctl\nlen(threadpoolctl.threadpool_info()) > 0") == ["True"]
        made, *moved = await run(box, "import os\nos.mkdir('d')", "%cd d", "%cd -q ..", "os.listdir()")
        assert (made, moved[0][-2:], moved[1]) == ("", "/d", "") and "'d'" in moved[2]
        homes = "import os\nall(os.environ[n].startswith(os.environ['HOME']) for n in ('MPLCONFIGDIR', 'IPYTHONDIR'))"
        assert await run(box, homes) == ["True"]
