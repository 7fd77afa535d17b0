"""The outcome of a cell is correct even if its code manipulates the reporting; mistakes do not cost variables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from sandbox import Outcome, Result, Sandbox

Attack = Callable[..., Awaitable[Result]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)

# Done before an exception is raised, in the same cell and in one before it.
_BLINDED = {
    "no-environment": "import os\nos.environ.clear()",
    "no-home": "import os\nos.environ.pop('HOME')",
    "no-prefix": "import sys\nsys.prefix = sys.base_prefix = None",
    "linecache": "import linecache\nlinecache.getline = linecache.getlines = linecache.checkcache = None",
    "traceback": "import traceback\ntraceback.format_exception_only = traceback.TracebackException = None",
    "builtins": "import builtins\nbuiltins.isinstance = builtins.len = builtins.open = builtins.sorted = None",
    "excepthook": "import sys\nsys.excepthook = sys.exc_info = None",
    "stdout": "import sys\nsys.stdout = sys.stderr = sys.__stdout__ = None",
    "modules": "import sys\nfor name in ('traceback', 'linecache', 'textwrap'): sys.modules[name] = None",
    "shell": "get_ipython().showtraceback = lambda *a, **k: None",
    "handler": "get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)",
    "warnings": "import warnings\nwarnings.simplefilter('error')",
    "recursion": "import sys\nsys.setrecursionlimit(120)",
    "descriptors": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "files": "kept = []\ntry:\n    while True: kept.append(open('/dev/null'))\nexcept OSError: pass",
    "no-builtins": "import builtins\nbuiltins.__dict__.clear()",
    "no-imports": "import builtins\nbuiltins.__import__ = builtins.exec = builtins.compile = None",
    "no-modules": "import sys\nsys.modules.clear()",
    "empty-traceback": "import traceback, linecache\ntraceback.__dict__.clear()\nlinecache.__dict__.clear()",
    "path": "import sys\nsys.path_importer_cache = sys.path = sys.meta_path = None",
    "event": "get_ipython().events.register('post_execute', lambda: 1 / 0)",
    "parts": "shell = get_ipython()\nshell.tracebacks = shell.payload_manager = shell.between = None",
    "audit": "import sys\ndef hook(*a): raise RuntimeError\nsys.addaudithook(hook)",
}


@pytest.mark.parametrize("blinded", list(_BLINDED.values()), ids=list(_BLINDED))
async def test_an_exception_is_never_ok(box: Sandbox, blinded: str) -> None:
    for cells in ([f"{blinded}\nraise ValueError('wrong')"], [blinded, "raise ValueError('wrong')"]):
        async with box.session() as session:
            results = [await session.execute(cell) for cell in cells]
        assert results[-1].outcome is not Outcome.OK and results[-1].error


@pytest.mark.parametrize(
    "exception",
    [
        "class E(Exception):\n    def __bool__(self): return False",
        "class E(Exception):\n    def __len__(self): return 0",
        "class E(Exception):\n    def __bool__(self): raise SystemExit(0)",
        "class E(Exception):\n    def __eq__(self, other): return True",
    ],
)
@pytest.mark.parametrize(
    "silenced",
    [
        "get_ipython().showtraceback = lambda *a, **k: None",
        "get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)",
    ],
)
async def test_an_exception_that_is_false_is_an_error(box: Sandbox, exception: str, silenced: str) -> None:
    async with box.session() as session:
        result = await session.execute(f"{silenced}\n{exception}\nraise E")
    assert result.outcome is Outcome.ERROR and result.error


async def test_the_error_is_the_one_that_ran_out(box: Sandbox) -> None:
    async with box.session() as session:
        for shown in ("get_ipython().run_cell('1 / 0')", "try: 1 / 0\nexcept Exception: get_ipython().showtraceback()"):
            result = await session.execute(f"{shown}\nraise KeyError('own')")
            assert result.error and result.error.splitlines()[-1] == "KeyError: 'own'"


@pytest.mark.parametrize("ending", ["raise ValueError('inner')", "import sys\nsys.exit(3)", "1 +", "f(", "x = [][1]"])
async def test_a_fork_that_fails_says_so(box: Sandbox, ending: str) -> None:
    code = f"import os\npid = os.fork()\nif pid == 0:\n    exec({ending!r})\nos.waitpid(pid, 0)[1] >> 8"
    async with box.session() as session:
        if "tier 3" in box.isolation:
            pytest.skip("no process can be forked")
        result = await session.execute(code)
        assert result.outcome is Outcome.OK and result.value == ("3" if "exit" in ending else "1")
        assert ("Error" in result.stdout) is ("exit" not in ending)


_EXCEPTIONS = {
    "str-raises": "class E(Exception):\n    def __str__(self): raise KeyError(1)",
    "str-exits": "class E(Exception):\n    def __str__(self): raise SystemExit(0)",
    "str-is-no-text": "class E(Exception):\n    def __str__(self): return 5",
    "str-is-long": "class E(Exception):\n    def __str__(self): return 'x' * 10_000_000",
    "str-prints": "class E(Exception):\n    def __str__(self):\n        print('x' * 2_000_000)\n        return 'x'",
    "no-name": (
        "class M(type):\n    def __getattribute__(self, name): raise KeyError(name)\n"
        "class E(Exception, metaclass=M): pass"
    ),
    "no-cause": "class E(Exception):\n    @property\n    def __cause__(self): raise KeyError(1)",
    "cause-of-itself": "class E(Exception):\n    @property\n    def __cause__(self): return self",
    "notes": "class E(Exception):\n    __notes__ = 5",
    "base": "class E(BaseException): pass",
    "exits": "class E(SystemExit): pass",
    "a-generators": "E = GeneratorExit",
    "an-interrupt": "E = KeyboardInterrupt",
    "a-debuggers": "import bdb\nE = bdb.BdbQuit",
    "memory": "E = MemoryError",
    "own-memory": "class E(MemoryError):\n    def __str__(self): return 'x' * (1 << 40)",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (1 << 28, 1 << 28))\nE = MemoryError",
    "no-traceback": "class E(Exception):\n    @property\n    def __traceback__(self): return 5",
    "chain": "E, error = ValueError, None\nfor _ in range(20_000):\n    later = E()\n    later.__cause__ = error\n"
    "    error = later\nraise error",
    "group": "E = lambda word: ExceptionGroup(word, [E(word)] if len(word) > 500 else [ValueError()] * 1_000)",
    "deep": "import sys\nsys.setrecursionlimit(10**6)\ndef E(word, n=100_000):\n    if not n: raise KeyError(word)\n"
    "    E(word, n - 1)",
}


@pytest.mark.parametrize("exception", list(_EXCEPTIONS.values()), ids=list(_EXCEPTIONS))
async def test_odd_exceptions_are_errors(box: Sandbox, exception: str) -> None:
    async with box.session() as session:
        await session.execute("x = 5")
        result = await session.execute(f"{exception}\nraise E('wrong')")
        assert result.outcome in (Outcome.ERROR, Outcome.MEMORY, Outcome.OUTPUT) and result.error
        assert (await session.execute("x")).text in ("5", "") or result.state_lost


_LATE = "import signal\ndef late(*a): raise TimeoutError\n"

_MISTAKES = {
    "terms": "1" + " + 1" * 5_000,
    "elif": "if 0: pass\n" + "elif 0: pass\n" * 3_000,
    "not": "not " * 5_000 + "1",
    "calls": "'a'" + ".strip()" * 3_000,
    "brackets": "(" * 500 + ")" * 500,
    "lists": "[" * 150 + "]" * 150,
    "lambdas": "lambda: " * 3_000 + "1",
    "dictionaries": "{0: " * 150 + "0" + "}" * 150,
    "null": "x = '\0'",
    "end": "import atexit\natexit._run_exitfuncs()",
    "alarm": f"{_LATE}signal.signal(signal.SIGALRM, late)\nsignal.setitimer(0, 1e-6)",
    "timer": f"{_LATE}signal.signal(signal.SIGPROF, late)\nsignal.setitimer(2, 1e-5)",
    "forgotten-alarm": f"{_LATE}signal.signal(signal.SIGALRM, late)\nsignal.setitimer(0, 0.02)",
    "files": "kept = []\nwhile True: kept.append(open('/dev/null'))",
    "pipes": "import os\nkept = []\nwhile True: kept.append(os.pipe())",
    "tracer": "import sys\nsys.settrace(lambda *a: print('traced'))",
    "profiler": "import sys\nsys.setprofile(lambda *a: 1 / 0)",
    "threads-tracer": "import threading\nthreading.settrace(lambda *a: 1 / 0)",
    "memory": "kept = []\nwhile True: kept.append(bytearray(1 << 20))\n",
    "much": "x_ = bytearray(1 << 40)",
    "folder": "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir(os.getcwd())",
    "stdin": "import sys\nsys.stdin.close()",
    "stdout": "import sys\nsys.stdout.close()\nsys.stderr.close()",
    "descriptors": "import os\nfor number in (0, 1, 2): os.close(number)",
    "mask": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "recursion": "import sys\nsys.setrecursionlimit(60)",
    "deep": "def f(n): return f(n + 1)\nf(0)",
    "builtins": "import builtins\nbuiltins.open = builtins.print = builtins.sorted = None",
    "disk": "try:\n    with open('/tmp/f', 'wb') as f:\n        while 1: f.write(bytes(1 << 20))\nexcept OSError: pass",
    "inodes": "import os, tempfile\ntry:\n    for n in range(5_000): tempfile.mkdtemp()\nexcept OSError: pass",
    "loop": "import asyncio\nasyncio.get_event_loop_policy().new_event_loop().close()\nasyncio.set_event_loop(None)",
    "umask": "import os\nos.umask(0o777)",
    "all-of-os": "import os\nfor name, value in vars(os).copy().items():\n"
    "    if name.islower() and callable(value): setattr(os, name, None)",
    "clock": "import time\ntime.time = time.monotonic = time.monotonic_ns = time.perf_counter = lambda: 0.0",
    "signals": "import signal\nsignal.signal = signal.setitimer = signal.getsignal = signal.pthread_sigmask = None",
    "threads": "import threading\nthreading.enumerate = threading.current_thread = threading.main_thread = None",
    "limits": "import resource\nresource.getrlimit = resource.setrlimit = None",
    "io": "import io, gc, tempfile\nio.TextIOWrapper = io.RawIOBase = gc.collect = tempfile.TemporaryFile = None",
    "sys": "import sys\nsys.settrace = sys.setprofile = sys.setrecursionlimit = sys.getrecursionlimit = None",
    "mocks": "from unittest import mock\n"
    "for name in ('os.write', 'os.dup2', 'time.monotonic', 'os.getpid'): mock.patch(name).start()",
    "imports": "import builtins\nbuiltins.__import__ = builtins.exec = builtins.eval = builtins.compile = None",
    "running-loop": "import asyncio\nasyncio._set_running_loop(asyncio.new_event_loop())",
    "watchdog": "import faulthandler\nfaulthandler.dump_traceback_later(0.05, exit=True)",
    "value": "class A:\n    def _repr_mimebundle_(self, **k): return {'text/plain': 5}\nA()",
    "text": "class S(str):\n    def __len__(self): return 5 / 0\n"
    "class A:\n    def _repr_mimebundle_(self, **k): return {'text/plain': S()}\nA()",
    "monitor": "import sys\nif hasattr(sys, 'monitoring'):\n    m = sys.monitoring\n    m.use_tool_id(3, 'a')\n"
    "    m.register_callback(3, m.events.PY_START, lambda *a: 1 / 0)\n    m.set_events(3, m.events.PY_START)",
}


@pytest.mark.parametrize("mistake", list(_MISTAKES.values()), ids=list(_MISTAKES))
async def test_mistakes_cost_no_variables(box: Sandbox, mistake: str) -> None:
    async with box.session() as session:
        await session.execute("x = 5")
        result = await session.execute(mistake, timeout=5)
        if result.state_lost:  # no memory is left, and it says so
            assert result.outcome is Outcome.MEMORY
            return
        read = await session.execute("int(input()) + x", stdin="2")
        assert (read.outcome, read.value, read.text) == (Outcome.OK, "7", "7")
        assert (await session.execute("import time\nwhile True: time.sleep(1)", timeout=0.2)).state_lost is False
        assert (await session.execute("x")).text == "5"


_USED_UP = {
    "processes": "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(60)",
    "threads": "import threading\nwhile True: threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "descriptors": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
    "inodes": "n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1",
    "names": "import tempfile\ntempfile.TemporaryFile = tempfile.tempdir = None",
    "folder": "import tempfile\ntempfile.tempdir = '/nowhere'",
}


@pytest.mark.parametrize("use", list(_USED_UP.values()), ids=list(_USED_UP))
async def test_a_fork_for_which_nothing_is_left_costs_no_variables(box: Sandbox, use: str) -> None:
    if not box.forks:
        return
    async with box.session() as session:
        await session.execute("x = 5")
        await session.execute(use)
        result = await session.execute("print(x)", fork=True)
        assert (result.outcome, result.state_lost) in ((Outcome.ERROR, False), (Outcome.OK, False))
        assert result.text == "5" or "cannot be run in a fork: " in result.text
        assert (await session.execute("x")).text == "5"


@pytest.mark.parametrize(
    "hook",
    [
        "get_ipython().user_ns = {}",
        "import gc\ngc.callbacks.append(lambda *a: 1 / 0)\ngc.set_threshold(1)",
        "get_ipython().events.register('post_execute', lambda: 1 / 0)",
        "get_ipython().events.register('pre_run_cell', lambda info: exit())",
        "get_ipython().ast_transformers.append(None)",
        "get_ipython().input_transformers_post.append(lambda lines: 1 / 0)",
        "get_ipython().input_transformers_cleanup.append(lambda lines: [1])",
        "get_ipython().display_formatter.formatters['text/plain'].for_type(int, lambda *a: 1 / 0)",
    ],
)
async def test_hooks_that_fail_cost_no_variables(box: Sandbox, hook: str) -> None:
    async with box.session() as session:
        await session.execute("x = 5")
        await session.execute(hook)
        assert not (await session.execute("x")).state_lost


@pytest.mark.parametrize("part", ["displayhook", "payload_manager", "between"])
async def test_a_kernel_that_can_run_nothing_is_replaced(box: Sandbox, part: str) -> None:
    async with box.session() as session:
        outcomes = [(await session.execute(f"get_ipython().{part} = None")).outcome]
        outcomes += [(await session.execute("1")).outcome for _ in range(2)]
        assert outcomes == [Outcome.ERROR, Outcome.DIED, Outcome.OK]


async def test_builtins_stay_as_the_code_has_made_them(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("import builtins\nbuiltins.max = lambda *things: -1\nbuiltins.own = 7\ndel builtins.sum")
        assert (await session.execute("max('ab'), own, hasattr(builtins, 'sum')")).text == "(-1, 7, False)"
        assert (await session.execute("import asyncio\nawait asyncio.sleep(0)\nmax('ab'), own")).text == "(-1, 7)"
        await session.execute("builtins.__import__ = None")
        assert (await session.execute("import os")).outcome is Outcome.ERROR
        assert (await session.execute("own")).text == "7"


async def test_handlers_and_limits_of_the_codes_are_there_in_the_next_cell(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute(
            "import signal\ndef late(*a): raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, late)"
        )
        result = await session.execute("signal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass")
        assert (result.outcome, result.text.splitlines()[-1]) == (Outcome.ERROR, "TimeoutError: late")
        await session.execute("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 64))")
        assert (await session.execute("resource.getrlimit(resource.RLIMIT_NOFILE)")).text == "(40, 64)"
        await session.execute("resource.setrlimit(resource.RLIMIT_NOFILE, (50, resource.RLIM_INFINITY))")
        assert (await session.execute("resource.getrlimit(resource.RLIMIT_NOFILE)")).text == "(50, 64)"
        refused = await session.execute("resource.setrlimit(resource.RLIMIT_NOFILE, (50, 40))")
        assert refused.outcome is Outcome.ERROR


async def test_input_larger_than_the_disk_is_read(box: Sandbox) -> None:
    much = "7" * (2 * box.limits.disk_bytes) + "\nend"
    async with box.session() as session:
        code = "import sys\nlen(input()), sys.stdin.read()"
        for _ in range(2):
            assert (await session.execute(code, stdin=much)).text == f"({2 * box.limits.disk_bytes}, 'end')"
        assert (await session.execute("1", stdin=much)).text == "1"  # and is not missed where it is not
        assert (await session.execute("input()", stdin="a")).text == "'a'"


@pytest.mark.parametrize(
    "sequence",
    ["\\x1b]0;", "\\x1b]8;;http://a", "\\x1bP1$r", "\\x1b_G", "\\x1b^", "\\x1bX", "\\x1b[", "\\x1b[38;5", "\\x1b"],
)
async def test_a_sequence_without_an_end_hides_nothing(attack: Attack, sequence: str) -> None:
    result = await attack(f"print('{sequence}')\nprint('visible')")
    assert result.text.splitlines()[-1] == "visible"


_STOPS = {
    "loop": "asyncio.get_running_loop().stop()",
    "task": "async def f(): raise SystemExit(0)\ntask = asyncio.create_task(f())",
    "callback": "asyncio.get_running_loop().call_soon(exit)",
    "alarm": f"{_LATE}signal.signal(signal.SIGALRM, late)\nsignal.setitimer(0, 0.01)",
    "swallowed": f"{_LATE}signal.signal(signal.SIGALRM, late)\nsignal.setitimer(0, 0.01, 0.01)\n"
    "try: await asyncio.sleep(5)\nexcept asyncio.CancelledError: pass",
    "loop-and-swallowed": "try:\n    asyncio.get_running_loop().stop()\n    await asyncio.sleep(5)\n"
    "except asyncio.CancelledError: exit()",
}


@pytest.mark.parametrize("stop", list(_STOPS.values()), ids=list(_STOPS))
async def test_a_cell_whose_loop_was_stopped_does_not_continue_in_the_next_one(box: Sandbox, stop: str) -> None:
    async with box.session() as session:
        result = await session.execute(f"import asyncio\nx = 5\n{stop}\nawait asyncio.sleep(0.1)\nprint('gone on')")
        assert (result.outcome, result.state_lost, result.stdout) == (Outcome.ERROR, False, "")
        assert (await session.execute("await asyncio.sleep(0.2)\nx")).text == "5"


async def test_a_time_that_is_up_is_not_caught_as_a_cancellation(box: Sandbox) -> None:
    catching = (
        "import asyncio\nx = 5\nwhile True:\n    try: await asyncio.sleep(5)\n    except asyncio.CancelledError: pass"
    )
    async with box.session() as session:
        result = await session.execute(catching, timeout=0.2)
        assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, False)
        assert (await session.execute("await asyncio.sleep(0)\nx, len(asyncio.all_tasks())")).text == "(5, 1)"


async def test_history_begins_with_the_first_cell(box: Sandbox) -> None:
    async with box.session() as session:
        assert (await session.execute("In, _i, _ii, Out")).text == "(['', 'In, _i, _ii, Out'], '', '', {})"
        assert (await session.execute("%history")).text == "In, _i, _ii, Out\n%history"
        assert (await session.execute("x = '\\u2028'; x")).text == "'\\u2028'"
        folders = "import os\n_dh == [os.getcwd()], get_ipython().home_dir == os.getcwd()"
        assert (await session.execute(folders)).text == "(True, True)"


async def test_a_time_that_is_up_before_the_cell_begins_costs_no_variables(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("x = 5")
        for _ in range(5):
            result = await session.execute("while True: pass", timeout=1e-6)
            assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, False)
        assert (await session.execute("x")).text == "5"


async def test_a_module_is_found_that_was_written_in_the_same_tick(box: Sandbox) -> None:
    """The folder's time is what it was when Python looked last, as it is within a few milliseconds."""
    write = "open('second.py', 'w').write('y = 4')\nos.utime('.', ns=(seen.st_atime_ns, seen.st_mtime_ns));"
    async with box.session() as session:
        first = "import os\nopen('first.py', 'w').write('y = 3')\nimport first\nseen = os.stat('.')\nfirst.y"
        assert (await session.execute(first)).text == "3"
        await session.execute(write)
        assert (await session.execute("import second\nsecond.y")).text == "4"


@pytest.mark.parametrize(
    "code",
    [
        "os.close(0)",
        "os.close(0)\nkept = open('full')",  # which is descriptor 0 then
        "os.dup2(os.open('full', os.O_RDONLY), 0)",
        "sys.stdin = open(0)",
        "sys.stdin.close()\nsys.__stdin__.close()",
        "sys.stdin.reconfigure(encoding='utf-16')",
        "import threading\ndef later():\n    go.wait()\n    os.dup2(os.open('full', os.O_RDONLY), 0)\n    done.set()\n"
        "go, done = threading.Event(), threading.Event()\nthreading.Thread(target=later).start()",
        "import gc, io\nfor thing in gc.get_objects():\n"
        "    if isinstance(thing, io.TextIOWrapper) and thing.name in (0, 1, 2): thing.close()",
    ],
)
async def test_a_cell_without_input_finds_it_empty(box: Sandbox, code: str) -> None:
    """Whatever the last one has done to its own, or a thread that it has left between the two."""
    async with box.session() as session:
        begin = "import os, sys\nopen('full', 'w').write('full');"
        assert (await session.execute(begin)).outcome is Outcome.OK
        assert (await session.execute(code)).outcome is Outcome.OK
        if "later" in code:
            assert (await session.execute("go.set(); done.wait()")).text == "True"
        for _ in range(2):
            found = await session.execute(
                "sys.stdin.encoding, sys.stdin.read(), os.read(0, 9), sys.__stdin__ is sys.stdin"
            )
            assert found.text == "('utf-8', '', b'', True)"
        assert (await session.execute("input()", stdin="there")).text == "'there'"
        assert (await session.execute("sys.stdin.read()")).text == "''"
