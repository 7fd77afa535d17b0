"""Repairs of traces at token level, which only remove tokens.

The paper modifies "unreasonable content" without saying how. The rules here:

* ``cut_after_answer``: removes everything after the line of the boxed answer, except the end of sequence.
* ``drop_failed_cell``: removes a failed cell and its output if the next cell is a corrected version: it succeeded, its
  code is similar, and no later cell reads a name that only the failed cell has set. The connective and the hint that
  opened the failed cell are removed, too, and the text between the failure and the corrected cell, which refers to the
  failure; a hint that opened the corrected cell stays.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise

from start_agent.data.alignment import connective_of
from start_agent.data.rows import MODIFICATIONS
from start_agent.data.views import Cell, TokenPosition, TraceView
from start_agent.tokens.answers import boxes
from start_agent.tokens.tokenizer import Tokenizer
from start_agent.trace import Span, SpanKind, Trace

CUT_AFTER_ANSWER, DROP_FAILED_CELL = "cut_after_answer", "drop_failed_cell"

TWIN_LIKENESS = 0.6
"""Minimum similarity (``difflib``'s ratio, by characters) of a corrected cell to the failed one: the value from which
difflib calls sequences close matches."""


def repair(trace: Trace, tokenizer: Tokenizer) -> Trace:
    """The repaired trace, with the names of its repairs in ``meta``; the same trace if nothing applies.

    A repaired trace has no log-probabilities, since the original ones belong to another context.
    """
    names: list[str] = []
    found = trace.without_logprobs()
    for name, rule in _RULES.items():
        while (repaired := rule(TraceView(found, tokenizer))) is not None:
            names.append(name)
            found = repaired
    if not names:
        return trace
    return replace(found, meta=found.meta | {MODIFICATIONS: [*found.meta.get(MODIFICATIONS, ()), *names]})


def cut_after_answer(view: TraceView) -> Trace | None:
    """The trace without the text after the line of the answer; None if nothing follows it."""
    trace, begin = view.trace, view.answer_begins
    if begin is None or trace.answer is None or trace.spans[-1].kind is not SpanKind.MODEL:
        return None
    last = trace.spans[-1]
    eos = last.token_ids[-1:] if last.token_ids and last.token_ids[-1] in view.tokenizer.eos_ids else ()
    end = len(view.text) - len(view.tokenizer.bytes_of(eos))
    answer = view.text[begin:end].decode("utf-8", errors="surrogateescape")
    box = next((box for box in boxes(answer) if box.content == trace.answer), None)
    if box is None:
        return None
    line_end = answer.find("\n", box.end)
    rest = answer[line_end:] if line_end >= 0 else ""
    if not rest.strip() or "```" in answer[: line_end if line_end >= 0 else None]:
        return None  # only white space follows; and an answer that is a program must not be cut
    cut, clean = view.token_at(begin + len(answer[:line_end].encode("utf-8", errors="surrogateescape")))
    if not clean:
        cut = TokenPosition(cut.span, cut.token + 1)  # the token that ends the line is kept whole
    if cut.span != len(trace.spans) - 1 or cut.token >= len(last.token_ids) - len(eos):
        return None
    return replace(trace, spans=[*trace.spans[:-1], replace(last, token_ids=last.token_ids[: cut.token] + eos)])


def drop_failed_cell(view: TraceView) -> Trace | None:
    """The trace without the first failed cell that has a corrected version; None if there is none to remove."""
    cells, spans = view.cells, view.trace.spans
    for at, (cell, twin) in enumerate(pairwise(cells)):
        if not _failed(spans[cell.output]) or not _ran(spans[twin.output]):
            continue
        likeness = SequenceMatcher(None, cell.code, twin.code, autojunk=False).ratio()
        if likeness < TWIN_LIKENESS or _needed(cell.code, [later.code for later in cells[at + 1 :]]):
            continue
        first, last = _lead_in(view, cell), _lead_in(view, twin)
        if first is not None and last is not None and (repaired := _without(view, first, last)) is not None:
            return repaired
    return None


_RULES: dict[str, Callable[[TraceView], Trace | None]] = {
    DROP_FAILED_CELL: drop_failed_cell,
    CUT_AFTER_ANSWER: cut_after_answer,
}


def _failed(output: Span) -> bool:
    return output.kind is SpanKind.TOOL_OUTPUT and output.cause != "ok"


def _ran(output: Span) -> bool:
    return output.kind is SpanKind.TOOL_OUTPUT and output.cause == "ok"


def _lead_in(view: TraceView, cell: Cell) -> TokenPosition | None:
    """The first token of a cell including its hint and connective; None if its fence begins inside a token."""
    if cell.hint is not None:
        before = connective_of(view.trace, cell.hint - 1, view.tokenizer)
        return TokenPosition(cell.hint, 0) if before is None else TokenPosition(cell.hint - 1, before)
    position, clean = view.token_at(cell.fence)
    return position if clean else None


def _without(view: TraceView, first: TokenPosition, last: TokenPosition) -> Trace | None:
    """The trace without the tokens from ``first`` to ``last`` (exclusive); None if a fence would not begin a line."""
    spans, tokenizer = view.trace.spans, view.tokenizer
    head, tail = spans[first.span], spans[last.span]
    kept, more = head.token_ids[: first.token], tail.token_ids[last.token :]
    place = view.begins[first.span] + len(tokenizer.bytes_of(kept))
    begins_line = not place or view.text[place - 1 : place] == b"\n"
    if tail.kind is SpanKind.MODEL and not begins_line:
        before = tail.token_ids[last.token - 1 : last.token]  # empty if the span begins with the twin's fence
        if not before or tokenizer.bytes_of(before).strip(b"\n"):
            return None
        more = (*before, *more)  # keep the line break before the twin's fence
    if head.kind is tail.kind is SpanKind.MODEL:
        joined = [Span(SpanKind.MODEL, kept + more, tail.cause)]
    else:
        joined = [replace(head, token_ids=kept)] if kept else []
        joined.append(replace(tail, token_ids=more))
    repaired = replace(view.trace, spans=[*spans[: first.span], *joined, *spans[last.span + 1 :]])
    if repaired.answer_begins is not None:  # the removed tokens came before it
        token, byte = repaired.answer_begins
        repaired.answer_begins = token - (view.trace.count() - repaired.count()), byte
    return repaired


def _needed(failed: str, later: Sequence[str]) -> bool:
    """Whether a later cell may read a name that only the failed one has set."""
    try:
        names = {name for statement in ast.parse(failed).body for name in _globals(statement)[1]}
    except (SyntaxError, ValueError):
        return False  # a syntax error: nothing was executed
    for code in later:
        try:
            statements = ast.parse(code).body
        except (SyntaxError, ValueError):
            continue  # a syntax error: nothing was executed
        for statement in statements:
            reads, sets = _globals(statement)
            if names & reads:
                return True
            names -= sets
    return False


def _globals(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """The global variables that a statement may read before setting them, and those that it sets.

    In a loop, only the loop variable counts as set before it is read.
    """
    reads: set[str] = set()
    sets: set[str] = set()
    top = symtable.symtable(ast.unparse(statement), "cell", "exec")
    tables = [top]
    for table in tables:
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table is top or symbol.is_global():
                if symbol.is_referenced():
                    reads.add(symbol.get_name())
                if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
                    sets.add(symbol.get_name())
    for node in ast.walk(statement):
        if isinstance(node, ast.For):
            reads -= _named(node.target) - _named(node.iter)
    return reads, sets


def _named(node: ast.expr) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
