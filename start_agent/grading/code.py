"""Grades programs: runs each test in the sandbox and compares the output on the host.

The expected outputs never enter the sandbox, so a program cannot look them up or claim to have passed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from sandbox import BaseSandbox, Limits, Outcome, Result
from start_agent.errors import GradingError
from start_agent.grading.cases import Case, read_cases
from start_agent.grading.verdict import Reason, Verdict
from start_agent.problem import CodeTests

LIMITS = Limits(seconds=6.0, memory_bytes=2 << 30, output_chars=4_000_000, printed_chars=8_000_000)
"""Limits of the sandbox for grading, large enough for the longest test output; a model gets far less output."""

_SHOWN = 200  # characters of an input or an output in a verdict

# The names that LiveCodeBench imports for every program (`import_string` in lcb_runner/evaluation/testing_util.py):
# all names of these modules, in this order, then most of the modules themselves. Later names shadow earlier ones.
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_IMPORTED = [name for name in _STARRED if name not in ("builtins", "typing")]
_PRELUDE = "".join(f"from {name} import *\n" for name in _STARRED) + f"import {', '.join(_IMPORTED)}\n"
_FILE = "solution.py"
_RECURSION = 50_000
_ROUNDING = 1e-9  # relative or absolute, for returned numbers: doubles have 15 digits, and sums lose a few of them
_STACK_BYTES = 512 << 20  # enough for that many calls through C: nested sorts take 5 KB each

# The first cell imports and compiles everything before the first test. The program runs in a fresh module, not among
# the session's variables, so that no name of this cell can collide with one of the program.
_PREPARE = """\
def _prepare():
    import builtins, linecache, resource, sys, types
    source, file = {source!r}, {file!r}
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    stack = {stack} if most == resource.RLIM_INFINITY else min(most, {stack})
    resource.setrlimit(resource.RLIMIT_STACK, (stack, most))
    sys.setrecursionlimit({recursion})
    module = types.ModuleType({name!r})
    exec({prelude!r}, module.__dict__)
    for shell in ("__IPYTHON__", "get_ipython", "display"):  # builtins of a notebook, not of a program
        module.__dict__.pop(shell, None)
    module.exit = module.quit = sys.exit
    module.__builtins__ = builtins  # the module itself, as in __main__
    module.__file__ = file
    sys.argv = [file]
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return module, compile(source, file, "exec", dont_inherit=True)
_module, _code = _prepare()
"""

# A test: runs the program in a fork of the session.
_PROGRAM = """\
def _run(module, code):
    import os, sys, tempfile, threading
    os.chdir(tempfile.mkdtemp())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.stack_size(0)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    sys.stdout = getattr(sys, "stdout", None)  # the cell reads it afterwards; the program may have deleted it
_run(_module, _code)
"""
_FUNCTION = """\
def _run(module, code):
    import json, os, sys, tempfile, threading
    os.chdir(tempfile.mkdtemp())
    results = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    threading.stack_size(0)
    arguments = [json.loads(line) for line in sys.stdin.read().split("\\n") if line.strip()]
    sys.modules[module.__name__] = module
    result = None
    try:
        exec(code, module.__dict__)
        owner = module.Solution() if hasattr(module, "Solution") else module
        result = getattr(owner, {function!r})(*arguments)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    def plain(value):  # NumPy's numbers as Python's
        return value.tolist() if getattr(value, "size", 0) == 1 and hasattr(value, "tolist") else repr(value)
    with open(results, "w", encoding="utf-8") as file:
        file.write({marker!r} + json.dumps(result, default=plain) + "\\n")
_run(_module, _code)
"""
_MARKER = "returned: "


async def grade_code(program: str | None, tests: CodeTests, sandbox: BaseSandbox) -> Verdict:
    """Run a program on its tests, in order, up to the first one that fails.

    A test passes if the program ends normally (``sys.exit()`` and ``sys.exit(0)`` included) within the time limit and
    gives the expected result. For a program that reads standard input, the lines of output are compared without
    surrounding white space, and lines that differ as text are compared as rows of numbers. For a function, the returned
    value is compared. ``tests.tolerance`` allows for rounding; without it, printed numbers must be equal, and returned
    numbers may differ by the rounding of doubles (1e-9).

    Each test runs in a fork of a session that has compiled the program, with a program's standard streams and exit, so
    tests cannot influence each other. As in LiveCodeBench, common names are imported already and the recursion limit is
    50,000. Unlike LiveCodeBench, each test starts from fresh state, a returned list may contain tuples, and returned
    decimals may differ by rounding (the official comparison is exact). See docs/how-to/data.md.

    Args:
        program: Python source; None if the answer has none.
        tests: the tests to pass.
        sandbox: an open sandbox whose limits fit the tests' output (as ``LIMITS`` does). A program uses one session.

    Raises:
        DataError: the tests cannot be read.
        SandboxError: the infrastructure failed; there is no verdict.
        GradingError: the sandbox's limits are too small for these tests; there is no verdict.
    """
    if program is None or not program.strip():
        return Verdict(False, None, Reason.NO_ANSWER, None, "no code block after thinking")
    cases = read_cases(tests)
    name = "solution" if tests.function else "__main__"  # a function must not trigger `if __name__ == "__main__"`
    source = program.removeprefix("\ufeff")  # Python skips a byte order mark at the beginning of a file
    settings = {"recursion": _RECURSION, "stack": _STACK_BYTES, "file": _FILE}
    prepare = _PREPARE.format(name=name, prelude=_PRELUDE, source=source, **settings)
    test = _FUNCTION.format(function=tests.function, marker=_MARKER) if tests.function else _PROGRAM
    number = 0
    while number < len(cases):
        async with sandbox.session(seed=0) as session:  # seeded, so that a randomized program gets the same verdict
            ready = await session.execute(prepare, timeout=tests.time_limit)
            while number < len(cases):
                case, result = cases[number], ready
                if ready.outcome is Outcome.OK:
                    result = await session.execute(test, timeout=tests.time_limit, stdin=case.input, fork=True)
                number += 1
                if (fault := _fault(result, case, tests, sandbox.limits)) is not None:
                    reason, words = fault
                    where = f"test {number} of {len(cases)}: {words}; input {_clip(case.input)}"
                    return Verdict(False, program, reason, case.output[:_SHOWN], where)
                if result.state_lost:
                    break
    return Verdict(True, program, Reason.PASSED, None, f"{len(cases)} tests")


def _fault(result: Result, case: Case, tests: CodeTests, limits: Limits) -> tuple[Reason, str] | None:
    """What is wrong with a test's result; None if the test passed. Raises GradingError."""
    match result.outcome:
        case Outcome.OK:
            pass
        case Outcome.DIED if result.exit_status == 0:  # `os._exit(0)` is a normal end
            pass
        case Outcome.TIMEOUT:
            return Reason.TIMEOUT, f"not finished within {tests.time_limit:g} s"
        case Outcome.CELLS:
            raise GradingError(f"the sandbox allows only {limits.cells} cells, too few for these tests")
        case Outcome.OUTPUT if len(case.output) < limits.printed_chars:
            return Reason.WRONG_OUTPUT, f"it printed more than {limits.printed_chars:,} characters"
        case Outcome.OUTPUT:
            raise GradingError(f"the sandbox's limit of {limits.printed_chars:,} printed characters is too low")
        case outcome:
            return Reason.ERROR, (result.error or outcome.value).strip().rpartition("\n")[2][:_SHOWN]
    if result.truncated:
        if len(case.output) >= limits.output_chars:
            raise GradingError(f"the sandbox's limit of {limits.output_chars:,} characters of output is too low")
        return Reason.WRONG_OUTPUT, f"it printed more than {limits.output_chars:,} characters"
    if tests.function:
        _, marked, last = f"\n{result.stdout}".rpartition(f"\n{_MARKER}")
        returned = last.partition("\n")[0] if marked else ""
        correct = same_value(case.output, returned, tests.tolerance)
        return None if correct else (Reason.WRONG_OUTPUT, f"it returned {_clip(returned)}, not {_clip(case.output)}")
    if same_output(case.output, result.stdout, tests.tolerance):
        return None
    return Reason.WRONG_OUTPUT, f"it printed {_clip(result.stdout)}, not {_clip(case.output)}"


def _clip(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + " ...")


def same_output(expected: str, printed: str, tolerance: float = 0.0) -> bool:
    """Whether a printed text equals the expected one, compared line by line as in LiveCodeBench."""
    printed, expected = printed.strip(), expected.strip()
    if printed.count("\n") != expected.count("\n"):  # a cheap check before splitting a long output in the event loop
        return False
    lines, wanted = _lines(printed), _lines(expected)
    return all(
        line == other or _same_numbers(other, line, tolerance) for line, other in zip(lines, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _same_numbers(expected: str, printed: str, tolerance: float) -> bool:
    """Whether two lines contain the same numbers."""
    if _is_much_longer(printed, expected):
        return False
    try:
        pairs = [(Decimal(one), Decimal(two)) for one, two in zip(expected.split(), printed.split(), strict=True)]
        return all(one == two or _near(float(one), float(two), tolerance) for one, two in pairs)
    except (InvalidOperation, ValueError):  # a word, a different count, or a signalling NaN
        return False


def _is_much_longer(found: str, expected: str) -> bool:
    """Whether a program's output is too long to be equal, so that hostile output is not parsed in the event loop.

    JSON escapes turn one character into six, and a double may have 17 digits where one was expected.
    """
    return len(found) > 18 * len(expected) + 1_000


def _near(expected: float, found: float, tolerance: float) -> bool:
    return tolerance > 0 and math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance)


def same_value(expected: str, returned: str, tolerance: float = 0.0) -> bool:
    """Whether two JSON values are equal. Numbers with a decimal point may differ by the rounding of doubles."""
    if _is_much_longer(returned, expected):
        return False
    try:
        pairs = _pairs(json.loads(expected, parse_int=Decimal), json.loads(returned, parse_int=Decimal))
        return all(_same(one, two, tolerance) for one, two in pairs)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return False


def _pairs(expected: Any, found: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of corresponding leaves of two values; parts whose structure differs form one pair."""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for one, two in zip(expected, found, strict=True):
            yield from _pairs(one, two)
    elif isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for name, one in expected.items():
            yield from _pairs(one, found[name])
    else:
        yield expected, found


def _same(expected: Any, found: Any, tolerance: float) -> bool:
    if expected == found:
        return True
    numbers = [value for value in (expected, found) if isinstance(value, Decimal | float)]
    if len(numbers) < 2:
        return False
    if any(isinstance(value, float) for value in numbers):
        tolerance = max(tolerance, _ROUNDING)
    return _near(float(expected), float(found), tolerance)
