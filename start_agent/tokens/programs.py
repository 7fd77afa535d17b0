"""The program in a final text: which of its blocks of code, and all of what belongs to it.

Fences are read as in the thoughts (``fences.py``). Where a text is whole, more can be told than in a stream: a fence at
the end of a line of code closes its block where no other does, and one inside a string of Python does not.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from start_agent.tokens.fences import is_one_of, opening, program

_PYTHON = frozenset({"python", "python3", "py"})
_MOST_FENCES = 8  # within the strings of one block that are looked through
_MOST_BLOCKS = 32  # that one program may be spread over, counted from the last
_READS_INPUT = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\s*\)")
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_STATEMENT = (*_DEFINITION, ast.Import, ast.ImportFrom, ast.Assign, ast.AugAssign, ast.AnnAssign)
_BUILTIN = frozenset(dir(builtins))
_COMPOUND = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Match)


class Block(NamedTuple):
    """A fenced block: its language in lower case (empty where none is named), its text, whether a fence closes it."""

    language: str
    code: str
    closed: bool


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order; one that nothing closes ends where the next opens, or with the text."""
    lines = [line + b"\n" for line in text.removesuffix("\n").encode(errors="replace").split(b"\n")]
    found: list[Block] = []
    at = 0
    while at < len(lines):
        opened = opening(lines[at])
        at += 1
        if opened is None or (opened.behind_prose and not is_one_of(opened.language, _PYTHON)):
            continue
        run, end = opened.fence.run, at
        while end < len(lines) and not opened.fence.closed_by(lines[end]):
            end += 1
        if is_one_of(opened.language, _PYTHON):  # a fence in a string closes nothing
            ends = (n for n in range(end, len(lines)) if opened.fence.closed_by(lines[n]))
            end = next((n for n in islice(ends, _MOST_FENCES) if _parsed(program(b"".join(lines[at:n])))), end)
        closed = end < len(lines) and not _opens_another(lines[end])
        behind = next((n for n in range(at, end) if lines[n].rstrip().endswith(run)), None)
        if not closed and behind is not None:  # a fence behind the code
            last = lines[behind].rstrip().removesuffix(run).rstrip()
            code = b"".join(lines[at:behind]) + last + b"\n" * bool(last)
            found.append(Block(opened.language, program(code), True))
            at = behind + 1
            continue
        found.append(Block(opened.language, program(b"".join(lines[at:end])), closed))
        at = end + closed
    return found


def last_code_block(text: str, function: str = "") -> str | None:
    """The program of a final text; None where there is no block of Python.

    It is the last block of Python. Blocks without a language count where none is tagged as Python, of these the last
    that holds statements; a block that nothing closes counts where no other does. Passed over where there is another:
    sessions (``>>>``), commands (``!pip``), outputs, and a block that merely uses, tests or quotes an earlier one. A
    last block that needs names of earlier ones and defines more, or without which no block reads the input and does
    something, is a part of the same program.

    Args:
        text: what came after thinking.
        function: by what name the program will be called; then it is the last block that defines it, or a class
            ``Solution``, and what reads the input in another block is no part of it. Empty where it is run.
    """
    found = [block for block in blocks(text) if not block.language or is_one_of(block.language, _PYTHON)]
    tagged = [block for block in found if block.language]
    plain = [block for block in found if not block.language and _does_something(block.code)]
    for group in (tagged, plain, found):
        for closed in (True, False):
            codes = [block.code for block in group if block.closed is closed]
            if codes:
                return _program([code for code in codes if _is_program(code)] or codes, function)
    return None


def _program(codes: Sequence[str], function: str) -> str:
    """The last of some blocks that is no mere use of earlier ones, with the earlier ones that it needs."""
    codes = codes[-_MOST_BLOCKS:]
    given = [_given(code) for code in codes]
    at = len(codes) - 1
    if function:
        at = next((n for n in range(at, -1, -1) if {function, "Solution"} & _definitions(codes[n])), at)
        return _joined(codes, given, at)
    while (before := _giving(_globals(codes[at]), given[:at])) is not None:
        if not _uses(codes[at], _joined(codes, given, before)):
            break
        at = before
    return _joined(codes, given, at)


def _joined(codes: Sequence[str], given: Sequence[frozenset[str]], at: int) -> str:
    """A block behind the earlier ones that it needs."""
    parts, needed = [codes[at]], _globals(codes[at])
    while (before := _giving(needed, given[:at])) is not None:
        at = before
        parts.append(codes[at].rstrip())
        needed = needed - given[at] | _globals(codes[at])
    return "\n\n".join(reversed(parts))


def _giving(needed: frozenset[str], given: Sequence[frozenset[str]]) -> int | None:
    """The last block that gives any of the names that are needed."""
    return next((at for at in range(len(given) - 1, -1, -1) if needed & given[at]), None)


def _uses(code: str, before: str) -> bool:
    """Whether a block merely uses, tests or quotes what is before it, which is the program."""
    if any(not name.lower().startswith("test") for name in _definitions(code)):
        return False
    if _acts(before):
        return True
    return not (_READS_INPUT.search(code) or _READS_INPUT.search(before) or not _definitions(before))


def _acts(code: str) -> bool:
    """Whether a block is a whole program: reads the input, and outside of what it defines prints or calls that."""
    tree = _parsed(code)
    if tree is None or not _READS_INPUT.search(code):
        return False
    run = {"print", "write"} | _definitions(code)
    statements = (part for part in tree.body if not isinstance(part, _DEFINITION))
    nodes = (node for part in statements for node in ast.walk(part))
    return any(
        (isinstance(node, ast.Name) and node.id in run) or (isinstance(node, ast.Attribute) and node.attr in run)
        for node in nodes
    )


def _opens_another(line: bytes) -> bool:
    """Whether a fence that could close a block opens another: a language follows it."""
    opened = opening(line)
    if opened is None or opened.behind_prose or not opened.language:
        return False
    adjacent = not line.lstrip(b" \t")[len(opened.fence.run) :][:1].isspace()
    return adjacent or is_one_of(opened.language, _PYTHON)


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings, which are nobody's business here
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no Python, zero bytes, too deep
        return None


def _is_program(code: str) -> bool:
    """Whether a block may be a program: it has a statement that is no bare value, and is no session or command."""
    if not code.strip() or code.lstrip().startswith((">>>", "!", "%", "$")):
        return False
    tree = _parsed(code)  # one that is wrong is a program all the same
    return tree is None or any(
        not isinstance(part, ast.Expr) or any(isinstance(node, ast.Call) for node in ast.walk(part))
        for part in tree.body
    )


def _does_something(code: str) -> bool:
    """Whether a block without a language is Python that does something; ``O(1)`` and ``3`` are Python too."""
    tree = _parsed(code)
    return tree is not None and any(
        (isinstance(node, (*_STATEMENT, *_COMPOUND)) and not _is_data(node))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        for node in ast.walk(tree)
    )


def _is_data(node: ast.AST) -> bool:
    """Whether it sets a name to a plain value, as an example does: ``n = 3``, ``Time: O(n)``."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    return node.value is None or not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node.value))


def _definitions(code: str) -> frozenset[str]:
    """The functions and classes that a block defines."""
    tree = _parsed(code)
    return frozenset(part.name for part in (tree.body if tree else ()) if isinstance(part, _DEFINITION))


def _given(code: str) -> frozenset[str]:
    """The names that a block gives to those behind it; what a whole program imports is its own business."""
    tree = _parsed(code)
    if tree is None:
        return frozenset()
    targets = {
        node.id
        for part in tree.body
        if not isinstance(part, _DEFINITION)
        for node in ast.walk(part)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return _definitions(code) | targets | (frozenset() if _acts(code) else _imported(tree))


def _imported(tree: ast.Module) -> frozenset[str]:
    return frozenset(
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    )


def _globals(code: str) -> frozenset[str]:
    """The names that a block reads and does not set anywhere, but for Python's own."""
    tree = _parsed(code)
    if tree is None:
        return frozenset()
    nodes = list(ast.walk(tree))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    methods = {part for node in nodes if isinstance(node, ast.ClassDef) for part in node.body}
    named = {node.name for node in nodes if isinstance(node, _DEFINITION) and node not in methods}
    return frozenset(read - stored - named - _imported(tree) - _BUILTIN)
