"""Finds the program in a final text: the code block, and the earlier blocks that it needs.

Fences are read as in the thoughts (``fences.py``). A complete text allows further rules: a fence at the end of a line
of code closes its block if no other one does, and a fence inside a Python string does not.
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
_MOST_FENCES = 8  # searched within the strings of one block
_MOST_BLOCKS = 32  # over which a program may be spread, counted from the last
_READS_INPUT = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\s*\)")
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_STATEMENT = (*_DEFINITION, ast.Import, ast.ImportFrom, ast.Assign, ast.AugAssign, ast.AnnAssign)
_BUILTIN = frozenset(dir(builtins))
_COMPOUND = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Match)


class Block(NamedTuple):
    """A fenced block: its language in lower case (empty for none), its code, and whether a fence closes it."""

    language: str
    code: str
    closed: bool


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order; an unclosed block ends where the next one opens, or with the text."""
    lines = [line + b"\n" for line in text.removesuffix("\n").encode(errors="replace").split(b"\n")]
    found: list[Block] = []
    at = 0
    while at < len(lines):
        opened = opening(lines[at])
        at += 1
        if opened is None or (opened.after_prose and not is_one_of(opened.language, _PYTHON)):
            continue
        run, end = opened.fence.run, at
        while end < len(lines) and not opened.fence.closed_by(lines[end]):
            end += 1
        if is_one_of(opened.language, _PYTHON):  # a fence in a string does not close the block
            ends = (n for n in range(end, len(lines)) if opened.fence.closed_by(lines[n]))
            end = next((n for n in islice(ends, _MOST_FENCES) if _parsed(program(b"".join(lines[at:n])))), end)
        closed = end < len(lines) and not _opens_another(lines[end])
        trailing = next((n for n in range(at, end) if lines[n].rstrip().endswith(run)), None)
        if not closed and trailing is not None:  # a fence at the end of a line of code
            last = lines[trailing].rstrip().removesuffix(run).rstrip()
            code = b"".join(lines[at:trailing]) + last + b"\n" * bool(last)
            found.append(Block(opened.language, program(code), True))
            at = trailing + 1
            continue
        found.append(Block(opened.language, program(b"".join(lines[at:end])), closed))
        at = end + closed
    return found


def last_code_block(text: str, function: str = "") -> str | None:
    """The program of a final text; None if it has no Python block.

    It is the last Python block. If no block is tagged as Python, blocks without a language count, preferably the last
    one with statements; an unclosed block counts if there is no closed one. If there is another block, these are
    skipped: sessions (``>>>``), commands (``!pip``), outputs, and a block that only uses, tests or quotes an earlier
    one. A last block that needs names of earlier blocks and defines more, or that is the only one that reads the input
    and does something, is joined with the earlier ones to one program.

    Args:
        text: the text after thinking.
        function: the name of the function that will be called; then the program is the last block that defines it or a
            class ``Solution``, and other blocks that read the input are not part of it. Empty for a program that is
            run.
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
    """The last block that does not only use earlier ones, joined with the earlier ones that it needs."""
    codes = codes[-_MOST_BLOCKS:]
    provided = [_provided(code) for code in codes]
    at = len(codes) - 1
    if function:
        at = next((n for n in range(at, -1, -1) if {function, "Solution"} & _definitions(codes[n])), at)
        return _joined(codes, provided, at)
    while (before := _provider(_globals(codes[at]), provided[:at])) is not None:
        if not _only_uses(codes[at], _joined(codes, provided, before)):
            break
        at = before
    return _joined(codes, provided, at)


def _joined(codes: Sequence[str], provided: Sequence[frozenset[str]], at: int) -> str:
    """A block after the earlier ones that it needs."""
    parts, needed = [codes[at]], _globals(codes[at])
    while (before := _provider(needed, provided[:at])) is not None:
        at = before
        parts.append(codes[at].rstrip())
        needed = needed - provided[at] | _globals(codes[at])
    return "\n\n".join(reversed(parts))


def _provider(needed: frozenset[str], provided: Sequence[frozenset[str]]) -> int | None:
    """The last block that provides any of the needed names."""
    return next((at for at in range(len(provided) - 1, -1, -1) if needed & provided[at]), None)


def _only_uses(code: str, before: str) -> bool:
    """Whether a block only uses, tests or quotes the code before it, which is the program."""
    if any(not name.lower().startswith("test") for name in _definitions(code)):
        return False
    if _is_complete(before):
        return True
    return not (_READS_INPUT.search(code) or _READS_INPUT.search(before) or not _definitions(before))


def _is_complete(code: str) -> bool:
    """Whether a block is a complete program: it reads the input, and prints or calls its definitions at top level."""
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
    """Whether a fence that could close a block opens another one, because a language follows it."""
    opened = opening(line)
    if opened is None or opened.after_prose or not opened.language:
        return False
    adjacent = not line.lstrip(b" \t")[len(opened.fence.run) :][:1].isspace()
    return adjacent or is_one_of(opened.language, _PYTHON)


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about escapes in strings do not matter here
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # not Python, null bytes, nested too deeply
        return None


def _is_program(code: str) -> bool:
    """Whether a block may be a program: it has a statement besides bare values, and is not a session or command."""
    if not code.strip() or code.lstrip().startswith((">>>", "!", "%", "$")):
        return False
    tree = _parsed(code)  # code with a syntax error counts as a program, too
    return tree is None or any(
        not isinstance(part, ast.Expr) or any(isinstance(node, ast.Call) for node in ast.walk(part))
        for part in tree.body
    )


def _does_something(code: str) -> bool:
    """Whether a block without a language is Python that does something; ``O(1)`` and ``3`` are valid Python, too."""
    tree = _parsed(code)
    return tree is not None and any(
        (isinstance(node, (*_STATEMENT, *_COMPOUND)) and not _is_data(node))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        for node in ast.walk(tree)
    )


def _is_data(node: ast.AST) -> bool:
    """Whether a statement only assigns a constant, as in an example: ``n = 3``, ``Time: O(n)``."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    return node.value is None or not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node.value))


def _definitions(code: str) -> frozenset[str]:
    """The functions and classes that a block defines."""
    tree = _parsed(code)
    return frozenset(part.name for part in (tree.body if tree else ()) if isinstance(part, _DEFINITION))


def _provided(code: str) -> frozenset[str]:
    """The names that a block provides to later ones; imports of a complete program do not count."""
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
    return _definitions(code) | targets | (frozenset() if _is_complete(code) else _imported(tree))


def _imported(tree: ast.Module) -> frozenset[str]:
    return frozenset(
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    )


def _globals(code: str) -> frozenset[str]:
    """The names that a block reads and never assigns, except builtins."""
    tree = _parsed(code)
    if tree is None:
        return frozenset()
    nodes = list(ast.walk(tree))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    methods = {part for node in nodes if isinstance(node, ast.ClassDef) for part in node.body}
    named = {node.name for node in nodes if isinstance(node, _DEFINITION) and node not in methods}
    return frozenset(read - stored - named - _imported(tree) - _BUILTIN)
