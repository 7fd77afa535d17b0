"""Programs: each test is a run in the sandbox, and what it prints is compared out here.

The expected outputs never enter the sandbox, so that a program cannot look them up or claim to have passed.
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
"""For the sandbox that grades: room for the longest output of a test; a model reads a few thousand characters."""

_SHOWN = 200  # characters of an input or an output that a verdict shows

# What LiveCodeBench gives every program before it begins (`import_string` in lcb_runner/evaluation/testing_util.py):
# all names of these modules, in this order, then most of the modules themselves. Some names hide others.
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_IMPORTED = [name for name in _STARRED if name not in ("builtins", "typing")]
_PRELUDE = "".join(f"from {name} import *\n" for name in _STARRED) + f"import {', '.join(_IMPORTED)}\n"
_FILE = "solution.py"
_RECURSION = 50_000
_ROUNDING = 1e-9  # relative or absolute, of numbers returned: doubles have 15 digits, and sums of them lose a few
_STACK_BYTES = 512 << 20  # what so many calls through C take at most: nested sorts take 5 KB each

# The first cell: everything is there and compiled when a test begins. What it needs is in a fresh module, not in the
# session's variables, and no name of its own is in the program's way.
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
    for shell in ("__IPYTHON__", "get_ipython", "display"):  # the builtins of a notebook, which no program has
        module.__dict__.pop(shell, None)
    module.exit = module.quit = sys.exit
    module.__builtins__ = builtins  # of the main module it is the module
    module.__file__ = file
    sys.argv = [file]
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return module, compile(source, file, "exec", dont_inherit=True)
_module, _code = _prepare()
"""

# A test, which is run as a program in a fork of the session.
_PROGRAM = """\
def _run(module, code):
    import os, sys, tempfile, threading
    os.chdir(tempfile.mkdtemp())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.stack_size(0)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    sys.stdout = getattr(sys, "stdout", None)  # a cell looks at it, and a program may have deleted it
_run(_module, _code)
"""
_FUNCTION = """\
def _run(module, code):
    import json, os, sys, tempfile, threading
    os.chdir(tempfile.mkdtemp())
    said = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
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
    def plain(value):  # numpy's numbers count as Python's
        return value.tolist() if getattr(value, "size", 0) == 1 and hasattr(value, "tolist") else repr(value)
    with open(said, "w", encoding="utf-8") as file:
        file.write({marker!r} + json.dumps(result, default=plain) + "\\n")
_run(_module, _code)
"""
_MARKER = "returned: "


async def grade_code(program: str | None, tests: CodeTests, sandbox: BaseSandbox) -> Verdict:
    """Run a program on its tests, in order, until the first that it fails.

    A test is passed when the program ends normally (``sys.exit()`` and ``sys.exit(0)`` among the ways) within its
    time and says what is expected. In the form of standard input, the lines of its output are compared without
    surrounding white space, and where they differ as text, as rows of numbers; in the form of a function, the value
    that it returns. ``tests.tolerance`` allows for rounding; where none is stated printed numbers are equal or they
    are not, and numbers returned may differ by the rounding of doubles (1e-9).

    Each test runs in a fork of a session that has compiled the program, with the standard streams and the end of any
    program: none sees what another has done. The conditions are LiveCodeBench's: names that are there without an
    import, and calls 50,000 deep. Different here: each test begins afresh, a list that is returned may hold tuples, and
    the official comparison of returned decimals leaves no room for rounding. See docs/how-to/data.md.

    Args:
        program: Python; None where the answer has none.
        tests: what it must do.
        sandbox: open, of limits that hold the tests' output (``LIMITS`` does). One session is taken for a program.

    Raises:
        DataError: the tests cannot be read.
        SandboxError: the infrastructure failed: no verdict.
        GradingError: the sandbox's limits are too narrow for these tests: no verdict.
    """
    if program is None or not program.strip():
        return Verdict(False, None, Reason.NO_ANSWER, None, "no block of code after thinking")
    cases = read_cases(tests)
    name = "solution" if tests.function else "__main__"  # what a module does when it is run is not wanted there
    source = program.removeprefix("\ufeff")  # Python skips the mark at the beginning of a file
    settings = {"recursion": _RECURSION, "stack": _STACK_BYTES, "file": _FILE}
    prepare = _PREPARE.format(name=name, prelude=_PRELUDE, source=source, **settings)
    test = _FUNCTION.format(function=tests.function, marker=_MARKER) if tests.function else _PROGRAM
    number = 0
    while number < len(cases):
        async with sandbox.session(seed=0) as session:  # the same verdict each time, where a program draws lots
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
    """What is wrong with a test's result; None where it is passed. Raises GradingError."""
    match result.outcome:
        case Outcome.OK:
            pass
        case Outcome.DIED if result.exit_status == 0:  # as by `os._exit(0)`, which is an end like any other
            pass
        case Outcome.TIMEOUT:
            return Reason.TIMEOUT, f"not done within {tests.time_limit:g} s"
        case Outcome.CELLS:
            raise GradingError(f"the sandbox allows {limits.cells} cells: too few for these tests")
        case Outcome.OUTPUT if len(case.output) < limits.printed_chars:
            return Reason.WRONG_OUTPUT, f"it printed more than {limits.printed_chars:,} characters"
        case Outcome.OUTPUT:
            raise GradingError(f"the sandbox's limit of {limits.printed_chars:,} printed characters is too narrow")
        case outcome:
            return Reason.ERROR, (result.error or outcome.value).strip().rpartition("\n")[2][:_SHOWN]
    if result.truncated:
        if len(case.output) >= limits.output_chars:
            raise GradingError(f"the sandbox's limit of {limits.output_chars:,} characters of output is too narrow")
        return Reason.WRONG_OUTPUT, f"it printed more than {limits.output_chars:,} characters"
    if tests.function:
        _, marked, last = f"\n{result.stdout}".rpartition(f"\n{_MARKER}")
        returned = last.partition("\n")[0] if marked else ""
        right = same_value(case.output, returned, tests.tolerance)
        return None if right else (Reason.WRONG_OUTPUT, f"it returned {_clip(returned)}, not {_clip(case.output)}")
    if same_output(case.output, result.stdout, tests.tolerance):
        return None
    return Reason.WRONG_OUTPUT, f"it printed {_clip(result.stdout)}, not {_clip(case.output)}"


def _clip(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + " ...")


def same_output(expected: str, printed: str, tolerance: float = 0.0) -> bool:
    """Whether a printed text is the expected one, line by line, as LiveCodeBench compares them."""
    printed, expected = printed.strip(), expected.strip()
    if printed.count("\n") != expected.count("\n"):  # before a long output is taken apart in the event loop
        return False
    lines, wanted = _lines(printed), _lines(expected)
    return all(
        line == other or _same_numbers(other, line, tolerance) for line, other in zip(lines, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n")]


def _same_numbers(expected: str, printed: str, tolerance: float) -> bool:
    """Whether two lines are rows of the same numbers."""
    if _is_much_longer(printed, expected):
        return False
    try:
        pairs = [(Decimal(one), Decimal(two)) for one, two in zip(expected.split(), printed.split(), strict=True)]
        return all(one == two or _near(float(one), float(two), tolerance) for one, two in pairs)
    except (InvalidOperation, ValueError):  # a word, not as many, or a signalling NaN
        return False


def _is_much_longer(found: str, expected: str) -> bool:
    """Whether a text is too long to say the same in other words: what a program wrote is parsed in the event loop.

    JSON escapes make six characters of one, and a double may have 17 digits where one was expected.
    """
    return len(found) > 18 * len(expected) + 1_000


def _near(expected: float, found: float, tolerance: float) -> bool:
    return tolerance > 0 and math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance)


def same_value(expected: str, returned: str, tolerance: float = 0.0) -> bool:
    """Whether two values in JSON are equal. Numbers with a decimal point may differ by the rounding of doubles."""
    if _is_much_longer(returned, expected):
        return False
    try:
        pairs = _pairs(json.loads(expected, parse_int=Decimal), json.loads(returned, parse_int=Decimal))
        return all(_same(one, two, tolerance) for one, two in pairs)
    except (ValueError, RecursionError):  # no JSON, or too deep: not what was expected
        return False


def _pairs(expected: Any, found: Any) -> Iterator[tuple[Any, Any]]:
    """The leaves of two values side by side; what does not match in shape is a pair of its own."""
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
