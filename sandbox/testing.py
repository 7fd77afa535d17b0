"""The contract of all sandboxes, as test classes to inherit. Needs pytest and pytest-asyncio.

::

    class TestMine(SandboxContract, PythonContract):
        @pytest_asyncio.fixture
        async def box(self):
            async with MySandbox(size=2) as box:
                yield box

`SandboxContract` tests sessions, and also holds for `FakeSandbox`; `PythonContract` is for sandboxes that run code.
The fixture `box` is an open sandbox with two places and ordinary limits.
"""

from __future__ import annotations

import asyncio

import pytest

from sandbox.base import BaseSandbox, Session
from sandbox.errors import SandboxClosed
from sandbox.result import Outcome
from sandbox.testing_files import FilesContract, PythonFilesContract


class SandboxContract(FilesContract):
    """Tests of sessions: their number, order and end, and their files."""

    async def test_isolation_and_stats_are_there(self, box: BaseSandbox) -> None:
        """The isolation can be recorded in a trace, and sessions and cells are counted."""
        before, cells = box.stats.sessions, box.stats.cells
        async with box.session() as session:
            await session.execute("1 + 1")
        assert isinstance(box.isolation, str) and box.isolation
        assert (box.stats.sessions, box.stats.cells) == (before + 1, cells + 1)

    async def test_a_closed_session_refuses(self, box: BaseSandbox) -> None:
        """After its block a session raises SandboxClosed."""
        async with box.session() as session:
            pass
        with pytest.raises(SandboxClosed):
            await session.execute("1 + 1")

    async def test_timeout_must_be_positive(self, box: BaseSandbox) -> None:
        """A timeout of 0 is an error of the caller, not a result."""
        async with box.session() as session:
            with pytest.raises(ValueError, match="timeout"):
                await session.execute("1 + 1", timeout=0)

    async def test_a_session_takes_a_seed(self, box: BaseSandbox) -> None:
        """Any integer, or None."""
        for seed in (None, 0, -5, 1 << 63):
            async with box.session(seed=seed) as session:
                await session.execute("1 + 1")

    async def test_waiters_are_served_in_order(self, box: BaseSandbox) -> None:
        """When all places are taken, callers are served first come, first served."""
        order: list[int] = []
        held: list[bool] = []
        full = asyncio.Event()

        async def hold(until: asyncio.Event) -> None:
            async with box.session():
                held.append(True)
                if len(held) == box.size:
                    full.set()
                await until.wait()

        async def ask(number: int) -> None:
            async with box.session():
                order.append(number)

        ends = [asyncio.Event() for _ in range(box.size)]
        holders = [asyncio.create_task(hold(end)) for end in ends]
        await full.wait()
        askers = []
        for number in range(4):
            askers.append(asyncio.create_task(ask(number)))
            while box.stats.waiting <= number:  # noqa: ASYNC110 - one iteration of the loop, no delay
                await asyncio.sleep(0)
        cancelled = askers.pop(1)
        cancelled.cancel()
        assert order == []
        ends[0].set()  # one place only, through which they go one after the other
        await asyncio.gather(*askers)
        assert order == [0, 2, 3]
        for end in ends:
            end.set()
        await asyncio.gather(*holders)
        assert box.stats.waiting == 0


class PythonContract(PythonFilesContract):
    """Tests of cells: their results and side effects."""

    @staticmethod
    async def _run(box: BaseSandbox, *cells: str, stdin: str | None = None) -> list[str]:
        async with box.session() as session:
            return [(await session.execute(cell, stdin=stdin)).text for cell in cells]

    async def test_variables_stay(self, box: BaseSandbox) -> None:
        """State is kept between cells."""
        assert await self._run(box, "x = 6*7\nprint(x)", "x + 1") == ["42", "43"]

    async def test_sessions_share_nothing(self, box: BaseSandbox) -> None:
        """One session's variables and files are not another's."""
        async with box.session() as one, box.session() as other:
            await one.execute("x = 1\nopen('note', 'w').write('mine')")
            result = await other.execute("import os\nprint('x' in globals(), os.path.exists('note'))")
        assert result.text == "False False"

    async def test_value_follows_the_output_on_its_own_line(self, box: BaseSandbox) -> None:
        """The last expression is shown as in a notebook; None and a semicolon show nothing."""
        cells = ("print('a', end='')\n[1, 'b']", "None", "3;", "x = 3", "")
        assert await self._run(box, *cells) == ["a\n[1, 'b']", "", "", "", ""]

    async def test_stdout_and_stderr_keep_their_order(self, box: BaseSandbox) -> None:
        """Output is in the order of printing, without escape sequences."""
        cell = "import sys\nprint(1)\nprint(2, file=sys.stderr)\nprint('\\x1b[31m3\\x1b[0m')"
        assert await self._run(box, cell) == ["1\n2\n3"]

    async def test_stdout_is_separate(self, box: BaseSandbox) -> None:
        """Output to stderr is in `text` but not in `stdout`, both in the beginning and in the end of long output."""
        both = "import sys\nprint(1)\nprint(2, file=sys.stderr)\nprint(3)"
        long = (
            f"import sys\nprint(0, file=sys.stderr)\nprint('x' * {3 * box.limits.output_chars})\nsys.stderr.write('2')"
        )
        async with box.session() as session:
            result = await session.execute(both)
            assert (result.stdout, result.text) == ("1\n3\n", "1\n2\n3")
            result = await session.execute(long + ";")
        assert result.truncated and result.text.startswith("0\nx") and result.text.endswith("x\n2")
        assert result.stdout.startswith("x") and result.stdout.endswith("x\n")

    async def test_output_of_child_processes_is_seen(self, box: BaseSandbox) -> None:
        """What a child process writes is part of the output."""
        assert await self._run(box, "import os\nos.system('echo child')\nprint('end')") == ["child\nend"]

    async def test_error_is_a_compact_traceback(self, box: BaseSandbox) -> None:
        """Only the model's own frames are shown, earlier output is kept, and cells are counted from 1."""
        texts = await self._run(
            box, "def f():\n    x = 1\n    return y", "print('before')\nf()", "import json\njson.loads('{')"
        )
        assert texts[1] == (
            "before\n"
            "Traceback (most recent call last):\n"
            '  File "<cell 2>", line 2\n'
            "    f()\n"
            '  File "<cell 1>", line 3, in f\n'
            "    return y\n"
            "NameError: name 'y' is not defined"
        )
        assert texts[2].splitlines()[1:3] == ['  File "<cell 3>", line 2', "    json.loads('{')"]
        assert texts[2].count("File") == 1

    async def test_syntax_error_points_at_the_place(self, box: BaseSandbox) -> None:
        """As in Python, with line and caret."""
        async with box.session() as session:
            result = await session.execute("x = = 3")
        assert result.outcome is Outcome.ERROR
        expected = '  File "<cell 1>", line 1\n    x = = 3\n        ^\nSyntaxError: invalid syntax'
        assert result.text == expected

    async def test_endless_recursion_is_reported_briefly(self, box: BaseSandbox) -> None:
        """A thousand frames are not shown."""
        (text,) = await self._run(box, "def f(n):\n    return f(n + 1)\nf(0)")
        assert "more frames" in text and text.splitlines()[-1].startswith("RecursionError")
        assert len(text.splitlines()) < 50

    async def test_a_seed_decides_the_random_numbers(self, box: BaseSandbox) -> None:
        """They are the same for the same seed, also on the kernel after one that died, and differ for other seeds."""
        draws = (
            "import random\nrandom.random()",
            "import numpy, sympy\n"
            "numpy.random.rand(), numpy.random.default_rng().random(), sympy.core.random.random(), {'a', 'b', 'c'}",
            "import os\nos._exit(1)",
            "import random\nrandom.random()",
        )

        async def run(seed: int | None) -> tuple[str, ...]:
            async with box.session(seed=seed) as session:
                return tuple([(await session.execute(cell)).text for cell in draws])

        runs = [await run(seed) for seed in (7, 7, 8, None, None)]
        assert runs[0] == runs[1] and runs[0][0] != runs[0][3]
        assert len({draws[0] for draws in runs}) == 4

    async def test_a_fork_leaves_the_session_as_it_was(self, box: BaseSandbox) -> None:
        """Changes made in a fork are discarded; earlier state is visible in the fork."""
        async with box.session() as session:
            await session.execute("x = 5")
            changes = "x += int(input())\nimport os\nos.close(1)\nos.chdir('/')\nx"
            result = await session.execute(changes, stdin="2", fork=True)
            assert (result.outcome, result.value) == (Outcome.OK, "7")
            if not box.forks:
                assert result.state_lost
                return
            assert (await session.execute("import os\nx, os.getcwd() != '/'")).text == "(5, True)"

    async def test_a_fork_ends_as_a_program_does(self, box: BaseSandbox) -> None:
        """Exit, signal, exception or output at exit: the session keeps its state."""
        ends = {
            "print(1)\nimport sys\nsys.exit()": (Outcome.OK, None, "1\n"),
            "print(1)\nimport sys\nsys.exit(3)": (Outcome.ERROR, None, "1\n"),
            "print(1, flush=True)\nimport os\nos._exit(0)": (Outcome.DIED, 0, "1\n"),
            "print(1)\nimport os\nos._exit(7)": (Outcome.DIED, 7, ""),
            "import os\nos.kill(os.getpid(), 9)": (Outcome.DIED, -9, ""),
            "import atexit\natexit.register(print, 2);\nprint(1)": (Outcome.OK, None, "1\n2\n"),
            "import threading\nthreading.Timer(0.01, print, [2]).start()\nprint(1)": (Outcome.OK, None, "1\n2\n"),
            "open(1, 'w').write('1');": (Outcome.OK, None, "1"),
            "1 / 0": (Outcome.ERROR, None, ""),
        }
        async with box.session() as session:
            await session.execute("x = 5")
            for code, expected in ends.items():
                if not box.forks and "kill" in code:
                    continue
                result = await session.execute(code, fork=True)
                assert (result.outcome, result.exit_status, result.stdout) == expected
                assert result.state_lost is not box.forks
            if box.forks:
                assert (await session.execute("x")).text == "5"

    async def test_a_fork_is_bounded_in_time_and_output(self, box: BaseSandbox) -> None:
        """As for any cell, and the session keeps its variables, even if the code ignores interrupts."""
        stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('go', flush=True)\n"
        if box.forks:
            async with box.session() as session:
                await session.execute("x = 5")
                for code in ("print('go')\nwhile True: pass", f"{stubborn}while True: pass"):
                    result = await session.execute(code, fork=True, timeout=1)
                    assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, False)
                    assert result.stdout == "go\n"
                much = f"print('x' * {box.limits.printed_chars + 1})"
                assert (await session.execute(much, fork=True)).outcome is Outcome.OUTPUT
                assert (await session.execute("x")).text == "5"

    async def test_what_a_fork_has_started_ends_with_it(self, box: BaseSandbox) -> None:
        """Child processes of a fork, also those in their own session, are killed."""
        daemon = "import os\nif os.fork() == 0:\n    os.setsid()\n    import time\n    time.sleep(60)\nprint('done')"
        if box.forks and box.isolation != "none":
            async with box.session() as session:
                assert (await session.execute(daemon, fork=True)).text == "done"
                left = await session.execute("import os\n[name for name in os.listdir('/proc') if name.isdigit()]")
                assert left.text == "['1']"

    async def test_stdin_that_a_cell_has_closed_is_there_for_the_next(self, box: BaseSandbox) -> None:
        """A program may close its standard input, as `open(0).read()` does."""
        assert await self._run(box, *["int(open(0).read()) + 1"] * 3, stdin="41") == ["42"] * 3
        assert await self._run(box, "import os; os.close(0)", "1", stdin=None) == ["", "1"]

    async def test_stdin_is_read(self, box: BaseSandbox) -> None:
        """It is read by input(), sys.stdin and descriptor 0; reading past its end raises EOFError."""
        cells = ("int(input('n? ')) + 1", "import sys\nsys.stdin.read()", "open(0).read()")
        assert await self._run(box, *cells, stdin="41\nb") == ["n? \n42", "'41\\nb'", "'41\\nb'"]
        async with box.session() as session:
            result = await session.execute("input()")
        assert result.outcome is Outcome.ERROR
        assert result.text.splitlines()[-1] == "EOFError: EOF when reading a line"

    async def test_exit_ends_the_cell_not_the_session(self, box: BaseSandbox) -> None:
        """sys.exit() and exit() are errors of the cell; variables stay."""
        async with box.session() as session:
            result = await session.execute("x = 1\nimport sys\nsys.exit(2)")
            assert (result.outcome, result.state_lost) == (Outcome.ERROR, False)
            assert result.text.splitlines()[-1] == "SystemExit: 2"
            assert (await session.execute("exit()")).outcome is Outcome.ERROR
            assert (await session.execute("x")).text == "1"

    async def test_timeout_by_interrupt_keeps_the_variables(self, box: BaseSandbox) -> None:
        """A loop is interrupted; its output and variables are kept."""
        async with box.session() as session:
            result = await session.execute("x = 5\nprint('go')\nwhile True:\n    pass", timeout=0.5)
            assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, False)
            assert result.text == "go\nTimeoutError: the code ran longer than 0.5 s and was stopped."
            assert (await session.execute("x")).text == "5"

    async def test_timeout_by_kill_says_that_variables_are_lost(self, box: BaseSandbox) -> None:
        """Code that ignores the interrupt is killed, and the session continues on a fresh kernel."""
        stubborn = "x = 5\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass"
        async with box.session() as session:
            result = await session.execute(stubborn, timeout=0.5)
            assert (result.outcome, result.state_lost) == (Outcome.TIMEOUT, True)
            assert result.text.endswith("All variables are lost.")
            assert (await session.execute("'x' in globals()")).text == "False"

    async def test_long_output_is_cut_in_the_middle(self, box: BaseSandbox) -> None:
        """Head and tail are kept, and the number of missing characters is stated."""
        async with box.session() as session:
            result = await session.execute("for i in range(30_000):\n    print(i)")
        printed = "".join(f"{i}\n" for i in range(30_000))
        head, _, tail = result.stdout.partition("\n[... ")
        count, _, tail = tail.partition(" characters cut ...]\n")
        assert result.truncated and result.outcome is Outcome.OK
        assert printed.startswith(head) and printed.endswith(tail)
        assert len(head) + len(tail) + int(count.replace(",", "")) == len(printed)
        assert len(result.text) <= box.limits.output_chars + 60

    async def test_a_huge_value_is_cut(self, box: BaseSandbox) -> None:
        """A value is cut like output."""
        async with box.session() as session:
            result = await session.execute("'a' * 10_000_000")
        assert result.truncated and len(result.text) <= box.limits.output_chars + 120

    async def test_top_level_await(self, box: BaseSandbox) -> None:
        """As in a notebook."""
        assert await self._run(box, "import asyncio\nawait asyncio.sleep(0)\n7") == ["7"]

    async def test_strange_text_is_no_trouble(self, box: BaseSandbox) -> None:
        """Null characters, lone surrogates and other scripts are handled."""
        async with box.session() as session:
            assert (await session.execute("x = '\0'")).outcome is Outcome.ERROR
            assert (await session.execute("print('\ud800')")).outcome is Outcome.OK
            assert (await session.execute("print('\\ud800', 'π√7')")).text == "? π√7"

    async def test_sessions_run_at_once(self, box: BaseSandbox) -> None:
        """Each of several sessions has its own state while all run."""

        async def one(number: int) -> str:
            async with box.session() as session:
                await session.execute(f"x = {number}")
                return (await session.execute("x * x")).text

        assert await asyncio.gather(*(one(number) for number in range(5))) == ["0", "1", "4", "9", "16"]

    async def test_cancelling_a_cell_leaves_the_session_usable(self, box: BaseSandbox) -> None:
        """The kernel is killed, and the next cell runs on a fresh one."""
        async with box.session() as session:
            await _cancel_when_running(session)
            assert (await session.execute("'x' in globals()")).text == "False"


async def _cancel_when_running(session: Session) -> None:
    await session.execute("x = 1")
    cell = asyncio.create_task(session.execute("while True:\n    pass", timeout=60))
    # After ten iterations of the loop it waits for the kernel; cancelling earlier would also be fine.
    for _ in range(10):
        await asyncio.sleep(0)
    cell.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cell
