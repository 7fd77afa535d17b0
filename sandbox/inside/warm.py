"""Warms up modules in the zygote, so that work at their first use is not repeated in every kernel.

numpy loads ``numpy.random`` at its first use, which every kernel needs, to seed it; sympy loads much of itself when it
first solves something, and caches facts about its own functions.
"""

from __future__ import annotations

import sys


def up() -> None:
    """Use each imported module once that benefits from it."""
    for name, use in (("numpy", _numpy), ("sympy", _sympy)):
        if name in sys.modules:
            use()


def _numpy() -> None:
    import numpy.random

    numpy.random.seed()


def _sympy() -> None:
    import sympy

    x, y = sympy.symbols("x y")
    sympy.solve(x**2 - 5 * x + 6, x)
    sympy.solve([x + y - 3, x - y - 1], [x, y])
    sympy.solveset(sympy.Eq(x**2, 4), x)
    sympy.nsolve(x**2 - 2, x, 1)
    sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
    sympy.integrate(x * sympy.exp(x), x)
    sympy.summation(x, (x, 1, y))
    sympy.Matrix([[1, 2], [3, 4]]).eigenvals()
    sympy.latex(sympy.sympify("sqrt(8) + pi / 3").evalf(20))
