"""The program of a final text."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from start_agent.tokens.programs import blocks, last_code_block
from tests.support.shared import shared_file

MAIN = "n = int(input())\nprint(n * 2)\n"
SOLUTION = "class Solution:\n    def f(self, n):\n        return n * 2\n"
SOLVE = "def solve():\n    print(int(input()) * 2)\n"
CALLING = "class Solution:\n    def f(self, n):\n        return f(n)\n"
LINE = "print(int(sys.stdin.read()) * 2)\n"
NUMPY = "import numpy as np\n\nprint(np.sum(int(input())))\n"
FUNCTION = "def f(n):\n    return n * 2\n"


def fenced(code: str, info: str = "python", fence: str = "```") -> str:
    return f"{fence}{info}\n{code}{fence}\n"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (fenced(MAIN), MAIN),
        (fenced("x = 1\n") + "then\n" + fenced(MAIN, "py"), MAIN),
        # how a fence is written
        *((fenced(MAIN, info), MAIN) for info in ("Python3", " python", "{python}", "{.python}", "py3", "python3.11")),
        *((fenced(MAIN, info), MAIN) for info in ("python:main.py", 'python title="a.py"', "Python 3", "python # it")),
        (fenced(MAIN, fence="~~~"), MAIN),
        (fenced(MAIN, fence="`````"), MAIN),
        ("The code: " + fenced(MAIN), MAIN),
        ("2. The code:\n\n    ```python\n    for a in b:\n        c\n    ```\n", "for a in b:\n    c\n"),
        ("-\t```python\n\tx = 1\n\t```\n", "x = 1\n"),
        (fenced(MAIN).replace("\n", "\r\n"), MAIN),
        (fenced(MAIN).rstrip() + " It doubles the number.", MAIN),
        (fenced(MAIN).rstrip() + "\nIt doubles.\n" + fenced("8\n", "output"), MAIN),
        (f"```python\n{MAIN.rstrip()}```\nIt doubles.\n\n```text\n8```\n", MAIN),
        (f"```python\n{MAIN.rstrip()}``` \n{fenced('python main.py', 'bash')}", MAIN),
        (f"> {fenced('x = 2', 'python')}\n{fenced(MAIN)}", MAIN),
        # a fence in a string
        (fenced(f'"""\n```\nf(1)\n```\n"""\n{FUNCTION}') + "Done.", f'"""\n```\nf(1)\n```\n"""\n{FUNCTION}'),
        (fenced('def f():\n  """\n  ```\n  1\n  ```\n  """\n'), 'def f():\n  """\n  ```\n  1\n  ```\n  """\n'),
        (fenced(f"s = '''\n{fenced(LINE)}'''\nprint(s)\n"), f"s = '''\n{fenced(LINE)}'''\nprint(s)\n"),
        (f"```python\n{MAIN}    ```\nIt doubles.\n", MAIN),
        (fenced("s = '''\n```'''\nprint(s)\n"), "s = '''\n```'''\nprint(s)\n"),
        # never closed
        (f"```python\n{MAIN}", MAIN),
        (f"```python\n{MAIN.rstrip()}", MAIN),
        (f"{fenced(MAIN)}Or:\n```python\nn = int(inp", MAIN),
        (f"```python\n{FUNCTION}Corrected:\n```python\n{MAIN}```\n", MAIN),
        (f"```python\n{MAIN}\n{fenced('3', 'output')}", f"{MAIN}\n"),
        # which block
        (fenced(MAIN) + fenced("O(1)\n", "") + fenced("Input: 3\n", ""), MAIN),
        (fenced(MAIN) + fenced("6\n", "text"), MAIN),
        (fenced(MAIN) + fenced("int x;\n", "c++") + fenced("let x\n", "{.js}") + fenced("8\n", "plain text"), MAIN),
        (fenced(MAIN, "") + fenced("3\n6\n", ""), MAIN),
        (fenced(MAIN, "") + fenced("O(n)\n", ""), MAIN),
        (fenced(MAIN, "") + fenced("Time: O(n)\nSpace: O(1)\n", ""), MAIN),
        (fenced(MAIN, "") + fenced("a = [1, 2]\nk = -3\n", ""), MAIN),
        (fenced("x = 1\n", ""), "x = 1\n"),
        (fenced("n = 3:\n", ""), "n = 3:\n"),
        (fenced(MAIN) + fenced("6\n"), MAIN),
        (fenced(MAIN) + fenced("[1, 2]\n'a'\n"), MAIN),
        (fenced(MAIN) + fenced(""), MAIN),
        (fenced(""), ""),
        (fenced(FUNCTION) + fenced(">>> f(3)\n6\n"), FUNCTION),
        (fenced(FUNCTION) + "No:\n" + fenced(FUNCTION.replace("2", "3")), FUNCTION.replace("2", "3")),
        (fenced(FUNCTION) + fenced("def f(n):\n    return (n\n"), "def f(n):\n    return (n\n"),
        # usage
        (fenced(SOLUTION) + "Usage:\n" + fenced("print(Solution().f(3))\n"), SOLUTION),
        (fenced(FUNCTION) + "Tests:\n" + fenced("assert f(3) == 6\nprint('ok')\n"), FUNCTION),
        (fenced(FUNCTION) + fenced("def test_f():\n    assert f(3) == 6\n\ntest_f()\n"), FUNCTION),
        (fenced(FUNCTION) + fenced("x = f(3)\n") + fenced("print(f(4))\n"), FUNCTION),
        (fenced("import math\n") + fenced(FUNCTION) + fenced("print(math.pi)\n"), "import math\n\nprint(math.pi)\n"),
        (fenced(MAIN) + "The key line:\n" + fenced("print(n * 2)\n"), MAIN),
        (
            fenced(SOLVE + "\nsolve()\n") + fenced("import sys\nsys.stdin = open('a.txt')\nsolve()\n"),
            SOLVE + "\nsolve()\n",
        ),
        (fenced(f"import sys\n{MAIN}") + "Shorter:\n" + fenced("print(int(sys.stdin.read()) * 2)\n"), LINE),
        *((fenced(SOLUTION) + fenced(command), SOLUTION) for command in ("!pip install x\n", "%timeit f\n", "$ ls\n")),
        # one program in several blocks
        (
            fenced("def read():\n    return int(input())\n")
            + fenced("def main():\n    print(read())\n")
            + fenced("main()\n"),
            "def read():\n    return int(input())\n\ndef main():\n    print(read())\n\nmain()\n",
        ),
        (fenced(SOLVE) + fenced("solve()\n"), f"{SOLVE}\nsolve()\n"),
        (
            fenced(SOLVE) + fenced("if __name__ == '__main__':\n    solve()\n"),
            SOLVE + "\nif __name__ == '__main__':\n    solve()\n",
        ),
        (fenced("M = 7\n") + fenced("n = int(input())\nprint(n % M)\n"), "M = 7\n\nn = int(input())\nprint(n % M)\n"),
        (fenced("n = int(input())\n") + fenced("print(2 * n)\n"), "n = int(input())\n\nprint(2 * n)\n"),
        (fenced("import numpy as np\n") + fenced("print(np.sum(int(input())))\n"), NUMPY),
        (
            fenced(FUNCTION) + fenced("def g(n):\n    return n\n") + fenced("print(f(g(int(input()))))\n"),
            f"{FUNCTION}\ndef g(n):\n    return n\n\nprint(f(g(int(input()))))\n",
        ),
        (fenced("input = open(0).readline\nprint(input())\n") + fenced(MAIN), MAIN),
        (fenced(FUNCTION) + "Then:\n" + fenced("print(f(int(input())))\n"), f"{FUNCTION}\nprint(f(int(input())))\n"),
        (
            fenced(FUNCTION) + fenced("class Solution:\n    def g(self, n):\n        return f(n)\n"),
            f"{FUNCTION}\nclass Solution:\n    def g(self, n):\n        return f(n)\n",
        ),
        # none
        ("no code", None),
        ("inline ```python print(1)``` only", None),
        (fenced("int x;\n", "cpp"), None),
        ("> ```python\n> x = 1\n> ```\n", None),
    ],
)
def test_the_program(text: str, program: str | None) -> None:
    assert last_code_block(text) == program
    assert last_code_block(f"First, some words.\n\n{text}") == program


@pytest.mark.parametrize(
    "behind",
    [
        "n = int(input())\nprint(Solution().f(n))\n",
        "def main():\n    print(Solution().f(int(input())))\nmain()\n",
        "class TestF(unittest.TestCase):\n    def test(self): assert Solution().f(1) == 2\nunittest.main()\n",
        "print(sorted([3, 1]))\n",
    ],
)
def test_a_program_that_is_called_has_no_driver(behind: str) -> None:
    text = fenced(FUNCTION) + fenced(CALLING) + fenced(behind)
    assert last_code_block(text, "f") == f"{FUNCTION}\n{CALLING}"
    assert last_code_block(fenced(behind), "f") == behind


def test_inputs_that_failed() -> None:
    for line in shared_file("bugs/final_code.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert last_code_block(row["text"]) == row["program"], row["kind"]


@given(
    st.lists(
        st.sampled_from(
            [
                "```",
                "````",
                "~~~",
                "python",
                "py",
                "\n",
                "\n",
                "    ",
                "\t",
                "x = 1",
                "- ",
                "> ",
                "f(1)",
                "'''",
                ">>> ",
                "js",
            ]
        ),
        max_size=30,
    ).map("".join)
)
def test_any_text_has_an_answer(text: str) -> None:
    found = last_code_block(text)
    codes = [block.code for block in blocks(text)]
    assert found is None or found in codes or "\n\n" in found
    assert not codes or all(code.endswith("\n") or not code for code in codes)


@pytest.mark.parametrize(
    "unit",
    [
        "```python\nx```\n",
        "```python\nf = f\n```\n",
        "```python\n'''\n```\n",
        "```\n",
        "~~~py\n",
        "```python\ndef f(): f\n```\n",
    ],
)
def test_hostile_text_takes_no_quadratic_time(unit: str) -> None:
    text = (unit * (100_000 // len(unit)))[:100_000]
    started = time.process_time()
    last_code_block(text)
    assert time.process_time() - started < 5
