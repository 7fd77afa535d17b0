"""What a cell came to, whatever it has done to those who say so; and that its mistakes cost no variables."""

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
}


@pytest.mark.parametrize("blinded", list(_BLINDED.values()), ids=list(_BLINDED))
async def test_an_exception_is_never_ok(box: Sandbox, blinded: str) -> None:
    for cells in ([f"{blinded}\nraise ValueError('wrong')"], [blinded, "raise ValueError('wrong')"]):
        async with box.session() as session:
            results = [await session.execute(cell) for cell in cells]
        assert results[-1].outcome is not Outcome.OK and results[-1].error


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


async def test_handlers_and_limits_of_the_codes_are_there_in_the_next_cell(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute(
            "import signal\ndef late(*a): raise TimeoutError('late')\nsignal.signal(signal.SIGALRM, late)"
        )
        result = await session.execute("signal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass")
        assert (result.outcome, result.text.splitlines()[-1]) == (Outcome.ERROR, "TimeoutError: late")
        await session.execute("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 64))")
        assert (await session.execute("resource.getrlimit(resource.RLIMIT_NOFILE)")).text == "(40, 64)"


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


async def test_history_begins_with_the_first_cell(box: Sandbox) -> None:
    async with box.session() as session:
        assert (await session.execute("In, _i, _ii, Out")).text == "(['', 'In, _i, _ii, Out'], '', '', {})"
        assert (await session.execute("%history")).text == "In, _i, _ii, Out\n%history"
        assert (await session.execute("x = '\\u2028'; x")).text == "'\\u2028'"


async def test_a_time_that_is_up_before_the_cell_begins_costs_no_variables(box: Sandbox) -> None:
    async with box.session() as session:
        await session.execute("x = 5")
        for _ in range(5):
            result = await session.execute("while True: pass", timeout=1e-6)
            assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, False)
        assert (await session.execute("x")).text == "5"


async def test_an_exception_that_is_false_is_an_error(box: Sandbox) -> None:
    code = "get_ipython().showtraceback = print\nclass E(Exception):\n    def __bool__(self): return False\nraise E"
    async with box.session() as session:
        assert (await session.execute(code)).outcome is Outcome.ERROR
