"""Random cells for the soak test: a grammar of hostile and ordinary Python. A seed always gives the same cells.

A hostile cell consists of one to three *acts*, each drawn from a kind (memory, forks, frames on the wire, ...) with
numbers filled in, and possibly wrapped: in a thread, a child process, a signal handler, an object's `__repr__` and so
on. An ordinary cell has a known answer.

No act consumes much of the machine or of its user beyond what the limits of a session bound: that would harm other
programs without showing anything new.
"""

from __future__ import annotations

import random
import string
import textwrap
from dataclasses import dataclass, replace

from sandbox.soak_acts import ACTS


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell, and what is known about its result.

    Attributes:
        code: the code to execute.
        kinds: kinds of its acts.
        timeout: seconds.
        text: the expected text of the result, in a session without hostile cells; None if unknown.
        fails: whether it ends with an exception, so that its outcome must not be OK.
        fork: whether it runs in a fork of the kernel, if the sandbox has forks.
    """

    code: str
    kinds: tuple[str, ...]
    timeout: float
    text: str | None = None
    fails: bool = False
    fork: bool = False


_FAILURE = "raise ArithmeticError('this cell fails')"

# Ways to run an act. $act is a function without arguments that performs it.
_WRAPPED = {
    "plainly": "$act()",
    "guarded": "try: $act()\nexcept BaseException: pass",
    "again and again": "for _ in range($few):\n    try: $act()\n    except Exception: pass",
    "in a thread": "import threading\nthreading.Thread(target=$act, daemon=$yes).start()",
    "in a thread, waited for": "import threading\nt = threading.Thread(target=$act)\nt.start()\nt.join()",
    "in a child": "import os\nif os.fork() == 0:\n    try: $act()\n    finally: os._exit(0)",
    "in children": (
        "import os\nfor _ in range($few):\n    if os.fork() == 0:\n        try: $act()\n        finally: os._exit(0)"
    ),
    "at exit": "import atexit\natexit.register($act)",
    "in a signal handler": (
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: $act())\nsignal.setitimer(signal.ITIMER_REAL, 0.0$few)"
    ),
    "in a repr": "class R:\n    def __repr__(self): return str($act())\nprint(R())",
    "in a deletion": "class D:\n    def __del__(self): $act()\nd = D()\ndel d",
    "in a tracer": "import sys\nsys.settrace(lambda *_: $act())\nprint('traced')",
    "in an import hook": (
        "import sys\nclass F:\n    def find_spec(self, *a): $act()\nsys.meta_path.insert(0, F())\n"
        "try: import nowhere\nexcept ImportError: pass"
    ),
    "after the cell": "get_ipython().events.register('post_run_cell', lambda *_: $act())",
    "in an except hook": "get_ipython().set_custom_exc((Exception,), lambda *_: $act())",
    "as print": "import builtins\nbuiltins.print = lambda *a, **k: $act()",
}


def session_of(seed: str) -> list[Cell]:
    """The cells of one session: in a quarter of sessions all ordinary, with known results; otherwise mixed."""
    draw = random.Random(seed)
    if draw.random() < 0.25:
        cells = [_ordinary(draw) for _ in range(draw.randint(1, 4))]
    else:
        number = draw.randint(1, 4)
        cells = [_hostile(draw) if draw.random() < 0.75 else _unsure(_ordinary(draw)) for _ in range(number)]
    return [replace(cell, fork=draw.random() < 0.15) for cell in cells]


def _unsure(cell: Cell) -> Cell:
    """An ordinary cell in a session with hostile ones, whose result they may have changed."""
    return Cell(cell.code, cell.kinds, cell.timeout)


def _hostile(draw: random.Random) -> Cell:
    kinds, lines = [], []
    for number in range(draw.choice((1, 1, 1, 2, 2, 3))):
        kind = draw.choice(sorted(ACTS))
        kinds.append(kind)
        act = _filled(draw, draw.choice(ACTS[kind]))
        name = f"act_{number}"
        how = "plainly" if draw.random() < 0.5 else draw.choice(sorted(_WRAPPED))
        lines.append(f"def {name}():\n{textwrap.indent(act, '    ')}")
        lines.append(_filled(draw, _WRAPPED[how], act=name))
    timeout = round(draw.uniform(0.2, 1.0), 2)
    # Whatever the acts did to tracebacks, an uncaught exception must be reported, though perhaps with another text.
    if kinds == ["tracebacks"] and how in ("plainly", "guarded"):
        return Cell("\n".join([*lines, _FAILURE]), tuple(kinds), timeout, fails=True)
    return Cell("\n".join(lines), tuple(kinds), timeout)


def _filled(draw: random.Random, text: str, **more: str) -> str:
    """Substitute random numbers and strings for the names with a dollar sign."""
    odd = "".join(
        draw.choice("ab \t\r\n\b\x1b[]()31mKA;?\x07\x00\u2028\ud800\U0001f600é") for _ in range(draw.randint(1, 60))
    )
    values = {
        "few": draw.randint(1, 9),
        "some": draw.choice((16, 40, 63, 64, 65, 100, 300)),
        "many": draw.choice((1_000, 5_000, 20_000, 100_000)),
        "bytes": draw.choice((1, 4096, 65_536, 1 << 20, 8 << 20)),
        "big": draw.choice((64, 200, 255, 300, 1_000, 5_000)) << 20,
        "short": round(draw.uniform(0.0, 0.3), 3),
        "long": draw.choice((2, 30, 10_000)),
        "yes": draw.random() < 0.5,
        "signal": draw.choice((*range(1, 16), 17, 18, 19, 20, 23, 24, 25, 26, 27, 29, 30, 31, 34, 50, 64)),
        "limit": draw.randrange(16),
        "seed": draw.randrange(1 << 32),
        "odd": ascii(odd),
    }
    return string.Template(text).substitute(values, **more)


def _ordinary(draw: random.Random) -> Cell:
    a, b = draw.randint(1, 999), draw.randint(1, 99)
    code, text = draw.choice(
        (
            (f"{a} * {b}", str(a * b)),
            (f"print(sum(range({a})))", str(sum(range(a)))),
            (f"x = [n * {b} for n in range({a})]\nlen(x), x[-1]", str((a, (a - 1) * b))),
            (f"import sympy\nsympy.expand((sympy.Symbol('x') + {b})**2)", f"x**2 + {2 * b}*x + {b * b}"),
            (f"import numpy as np\nint(np.arange({a}).sum() + {b})", str(sum(range(a)) + b)),
            (f"def f(n): return n if n < 2 else f(n - 1) + {b}\nf(50)", str(1 + 49 * b)),
            (
                f"with open('note', 'w') as file: file.write('{a}' * {b})\nopen('note').read()[:9]",
                repr((str(a) * b)[:9]),
            ),
            (f"import json\njson.loads('{{\"a\": [{a}, {b}]}}')['a']", f"[{a}, {b}]"),
            (f"print('é' * {b}, end='')", "é" * b),
        )
    )
    return Cell(code, ("ordinary",), 20.0, text)
