"""Programs, run on their tests in the real sandbox."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox import FakeSandbox, KernelStartError, Limits, Outcome, Result, Sandbox
from start_agent.errors import DataError, GradingError
from start_agent.grading import Reason, grade, grade_code
from start_agent.grading.code import LIMITS
from start_agent.problem import CodeTests
from start_agent.tasks import load

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(limits=LIMITS, size=2) as sandbox:
        yield sandbox


def cases_of(*pairs: tuple[str, str], function: str = "", time_limit: float = 6.0, tolerance: float = 0.0) -> CodeTests:
    rows = [{"input": given, "output": expected, "testtype": "stdin"} for given, expected in pairs]
    return CodeTests(json.dumps(rows), function=function, time_limit=time_limit, tolerance=tolerance)


DOUBLE = cases_of(("3\n", "6\n"), ("4", "8"))
PASSING = [
    ("print(int(input()) * 2)", DOUBLE),
    ("import sys\nn = int(sys.stdin.readline())\nprint(n * 2, file=sys.stdout)\nsys.exit()", DOUBLE),
    ("n = int(open(0).read())\nprint(2 * n)\nexit(0)", DOUBLE),
    ("import sys\nif __name__ == '__main__': sys.stdout.buffer.write(b'%d\\n' % (2 * int(input())))", DOUBLE),
    ("import sys\nprint('debug', file=sys.stderr)\nprint(2 * int(input()))\nraise SystemExit", DOUBLE),
    ("try:\n    seen\n    print('seen')\nexcept NameError:\n    seen = 1\n    print(2 * int(input()))", DOUBLE),
    ("import threading\nt = threading.Thread(target=lambda: print(2 * int(input())))\nt.start(); t.join()", DOUBLE),
    ("print(' 1.0   2.00 ')\nprint()", cases_of(("", "1 2"))),
    ("print('x' * 100_000)", cases_of(("", "x" * 100_000))),
    ("import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(20_000))",
     cases_of(("", "20000"))),
    ("print(1 / 3)", cases_of(("", "0.33333"), tolerance=1e-4)),
    ("class Solution:\n    def add(self, a: List[int], b: int) -> int:\n        print('x')\n        return sum(a) + b",
     cases_of(("[1, 2]\n3", "6"), ("[]\n-1", "-1"), function="add")),
    ("def add(a, b):\n    return (a, b)", cases_of(("1\n2", "[1, 2]"), ('"x"\nnull', '["x", null]'), function="add")),
    ("def f():\n    return 0.1 + 0.2", cases_of(("", "0.3"), function="f", tolerance=1e-6)),
]  # fmt: skip

FAST_OUTPUT = """
import io, os, sys
class Out(io.IOBase):
    def __init__(self, file):
        assert "r" not in file.mode
        self.descriptor, self.text = file.fileno(), ""
    def write(self, text):
        self.text += text
    def flush(self):
        os.write(self.descriptor, self.text.encode())
        self.text = ""
sys.stdout = Out(sys.stdout)
"""
TWICE = "print(2 * int(input()))"
# What programs find where LiveCodeBench runs them.
CONDITIONS = [
    # depth, without a limit of their own, also through C
    ("def f(n): return n and 1 + f(n - 1)\nprint(f(int(input())))", cases_of(("9000", "9000"), ("45000", "45000"))),
    ("@cache\ndef f(n): return n and 1 + f(n - 1)\nprint(f(int(input())))", cases_of(("12000", "12000"))),
    # names
    ("class Solution:\n    def f(self, a): return [reduce(mul, a), gcd(*a), mean(a), Counter(a)[2], pow(2, 5, 7)]",
     cases_of(("[2, 4]", "[8, 2, 3, 1, 4]"), function="f")),
    ("print(datetime.date(2024, 2, 1).isoformat(), dumps(copy.copy([1])), StringIO('x').read(), re.sub('a', 'b', 'a'))",
     cases_of(("", "2024-02-01 [1] x b"))),
    ("for line in stdin: print(2 * int(line))", cases_of(("4", "8"), ("5\n6", "10\n12"))),
    # streams
    (f"import sys, io\nsys.stdin = io.TextIOWrapper(sys.stdin.buffer)\n{TWICE}", DOUBLE),
    (f"import sys, os\nsys.stdout = os.fdopen(1, 'w')\n{TWICE}", DOUBLE),
    (f"import sys, io\nsys.stdout = io.TextIOWrapper(io.BufferedWriter(sys.stdout.buffer))\n{TWICE}", DOUBLE),
    (f"import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='ascii')\n{TWICE}", DOUBLE),
    (f"import sys\nsys.stdin.reconfigure(encoding='ascii')\nassert sys.stdin.mode == 'r'\n{TWICE}", DOUBLE),
    ("import sys\ninput = sys.__stdin__.readline\nsys.__stdout__.buffer.write(b'%d' % (2 * int(input())))", DOUBLE),
    (FAST_OUTPUT + TWICE, DOUBLE),
    ("import sys\ndef f(n):\n    sys.stdout.buffer.write(b'noise')\n    return n", cases_of(("3", "3"), function="f")),
    (f"import sys\n{TWICE}\nsys.stdout.close()", DOUBLE),
    (f"import sys\nsys.stdin = open(0)\n{TWICE}", DOUBLE),
    ("file = open(0)\ndef read(): return int(file.readline())\nprint(2 * read())", DOUBLE),
    (f"import os\nos.write(2, b'noise')\nos.system('echo noise >&2')\n{TWICE}", DOUBLE),
    # a module that is found by its name
    ("from __future__ import annotations\nfrom dataclasses import dataclass, field\n@dataclass(order=True)\nclass P:\n"
     "    x: int\n    y: list[int] = field(default_factory=list)\nprint(P(2 * int(input())).x)", DOUBLE),
    ("import pickle\nclass P: pass\ndef f(n): return isinstance(pickle.loads(pickle.dumps(P())), P)",
     cases_of(("1", "true"), function="f")),
    # values
    ("import numpy as np\ndef f(n): return [np.float64(n) / 2, np.int32(n), np.bool_(True), np.array(n)]",
     cases_of(("3", "[1.5, 3, true, 3]"), function="f")),
    ("def f(n): return {'a': [n / 3]}", cases_of(("0.9", '{"a": [0.3]}'), function="f")),
    ("def f(n): return n ** 6000", cases_of(("10", "1" + "0" * 6000), function="f")),
    ("print(len(str(int(input()) ** 2)))", cases_of(("9" * 5000, "10000"))),
    # one test does not see another's
    ("import builtins\nold = print\nbuiltins.print = lambda *a: old(*a, *a)\nbuiltins.print(int(input()))",
     cases_of(("1", "1 1"), ("2", "2 2"))),
    ("import threading\nthreading.Thread(target=lambda: print(2 * int(input()))).start()", DOUBLE),
]  # fmt: skip

FAILING = [
    ("print(int(input()) + 3)", DOUBLE, Reason.WRONG_OUTPUT, "test 2 of 2: it printed '7', not '8'; input '4'"),
    ("", DOUBLE, Reason.NO_ANSWER, "no code block"),
    ("while True: pass", cases_of(("", ""), time_limit=0.5), Reason.TIMEOUT, "not finished within 0.5 s"),
    ("import sys\nsys.exit(1)", DOUBLE, Reason.ERROR, "SystemExit: 1"),
    ("def f(:", DOUBLE, Reason.ERROR, "SyntaxError"),
    ("print(1 / 0)", DOUBLE, Reason.ERROR, "ZeroDivisionError"),
    ("input(); input(); input()", DOUBLE, Reason.ERROR, "EOFError"),
    ("import os\nos._exit(0)", DOUBLE, Reason.WRONG_OUTPUT, "it printed ''"),
    ("import os\nos._exit(1)", DOUBLE, Reason.ERROR, "died"),
    ("x = [0] * 10**10", DOUBLE, Reason.ERROR, "MemoryError"),
    ("while True: print('y' * 10_000)", DOUBLE, Reason.WRONG_OUTPUT, "it printed more than"),
    ("print('y' * 5_000_000)", DOUBLE, Reason.WRONG_OUTPUT, "it printed more than"),
    ("def g(): return 1", cases_of(("", "1"), function="f"), Reason.ERROR, "has no attribute 'f'"),
    ("def f(): return {1}", cases_of(("", "[1]"), function="f"), Reason.WRONG_OUTPUT, "it returned"),
    ("def f(): return 0.1 + 0.2", cases_of(("", "0.3001"), function="f"), Reason.WRONG_OUTPUT, "it returned"),
    ("def f(): return 10**17 + 1", cases_of(("", "100000000000000000"), function="f"), Reason.WRONG_OUTPUT, "returned"),
    (
        "import numpy as np\ndef f(): return np.array([1, 2])",
        cases_of(("", "[1, 2]"), function="f"),
        Reason.WRONG_OUTPUT,
        "it returned",
    ),
    ("print('sNaN')", cases_of(("", "1")), Reason.WRONG_OUTPUT, "it printed"),
    (
        "import functools\n@functools.lru_cache(None)\ndef f(n): return f(n + 1)\nf(0)",
        DOUBLE,
        Reason.ERROR,
        "RecursionError",
    ),
    ("def f(): raise SystemExit", cases_of(("", "1"), function="f"), Reason.WRONG_OUTPUT, "it returned 'null'"),
]


@pytest.mark.parametrize(("program", "tests"), [*PASSING, *CONDITIONS])
async def test_passed(box: Sandbox, program: str, tests: CodeTests) -> None:
    verdict = await grade_code(program, tests, box)
    assert verdict.correct and verdict.reason is Reason.PASSED and verdict.parsed == program, verdict


@pytest.mark.parametrize(("program", "tests", "reason", "words"), FAILING)
async def test_the_first_failure_is_reported(
    box: Sandbox, program: str, tests: CodeTests, reason: Reason, words: str
) -> None:
    verdict = await grade_code(program, tests, box)
    assert not verdict.correct and verdict.reason is reason and words in verdict.detail, verdict
    json.dumps(verdict.to_json())


async def test_many_at_once(box: Sandbox) -> None:
    verdicts = await asyncio.gather(*(grade_code(f"print({n})", cases_of(("", "3")), box) for n in range(6)))
    assert [verdict.correct for verdict in verdicts] == [n == 3 for n in range(6)]


async def test_a_fault_of_the_infrastructure_is_no_verdict() -> None:
    async with FakeSandbox(lambda code: "6") as fake:
        fake.fail_next(KernelStartError("no kernel"))
        with pytest.raises(KernelStartError):
            await grade_code("print(6)", DOUBLE, fake)
        assert fake.open_sessions == 0
        with pytest.raises(DataError, match="without tests"):
            await grade_code("print(6)", CodeTests(), fake)


@pytest.mark.parametrize(
    ("result", "limits"),
    [
        (Result(Outcome.OK, stdout="66", truncated=True), Limits(output_chars=5)),
        (Result(Outcome.OUTPUT, stdout="66", truncated=True), Limits(printed_chars=5)),
        (Result.no_more_cells(1), Limits(cells=1)),
    ],
)
async def test_limits_that_are_too_narrow_are_no_verdict(result: Result, limits: Limits) -> None:
    async with FakeSandbox(lambda code: result, limits=limits) as fake:
        with pytest.raises(GradingError, match="sandbox"):
            await grade_code("print('6' * 10)", cases_of(("", "6666666666")), fake)


async def test_the_expected_output_never_enters_the_sandbox() -> None:
    async with FakeSandbox(lambda code: "no") as fake:
        await grade_code("print(input())", cases_of(("in", "swordfish")), fake)
        assert fake.codes and not any("swordfish" in code for code in fake.codes)


async def test_from_a_file_of_the_set_to_a_verdict(box: Sandbox, tmp_path: Path) -> None:
    def packed(rows: list[dict[str, str]]) -> str:
        return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(rows)))).decode()

    common = {"starter_code": "", "metadata": "{}", "difficulty": "easy", "contest_date": "2024-01-01T00:00:00"}
    shown, hidden = {"input": "2\n", "output": "4\n", "testtype": "stdin"}, {"input": "5", "output": "10"}
    called = {"input": "[1, 2]\n3", "output": "[3, 6]", "testtype": "functional"}
    rows = [
        {
            "question_content": "Double it.",
            "public_test_cases": json.dumps([shown]),
            "private_test_cases": packed([hidden]),
        },
        {
            "question_content": "Scale them.",
            "starter_code": "class Solution:\n    def scale(self, xs: List[int], k: int) -> List[int]:\n        ",
            "public_test_cases": json.dumps([called]),
            "private_test_cases": packed([called]),
            "metadata": json.dumps({"func_name": "scale"}),
        },
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(common | row) + "\n" for row in rows))
    double, scale = load("livecodebench", data=str(path))
    assert double.meta["level"] == "easy"
    answer = "Here it is:\n```python\nprint(int(input()) ** 2)\n```"
    verdict = await grade(double, answer, sandbox=box)
    assert verdict.detail == "test 2 of 2: it printed '25', not '10'; input '5'"
    assert (await grade(double, answer.replace("** 2", "* 2"), sandbox=box)).correct
    body = scale.starter_code.rstrip() + " return [x * k for x in xs]"
    assert (await grade(scale, f"```python\n{body}\n```", sandbox=box)).detail == "2 tests"
