"""Converts drafts to texts: long thoughts (without code), documents (with code), and thoughts about given outputs.

A text is a list of pieces. Each piece is encoded separately, as hints and tool outputs are at run time. Special tokens
may only occur at the beginning of a piece.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import redirect_stdout

from start_agent.pocket import wording
from start_agent.pocket.families import Draft

END = "<|endoftext|>"


def prompt(question: str) -> str:
    """The chat prompt as rendered by the tokenizer's template, with thinking opened."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n<think>\n"


def closing(answer: int) -> str:
    """The end of a thought: the marker, the boxed answer, the end of the turn."""
    return f"</think>\n\nThe answer is \\boxed{{{answer}}}.<|im_end|>"


def claim(draft: Draft, value: int) -> str:
    """The draft's claim with a value filled in."""
    return draft.claim.replace("{n}", str(value))


def run_cell(code: str, namespace: dict[str, object], cell: int) -> tuple[str, bool]:
    """Run one of our own programs. Returns its output, or its traceback as the kernel shows it, and success."""
    out = io.StringIO()
    try:
        with redirect_stdout(out):
            exec(compile(code, f"<cell {cell}>", "exec"), namespace)
    except Exception as error:
        lines = code.split("\n")
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        number = trace.tb_lineno if trace is not None else 1
        return (
            f'Traceback (most recent call last):\n  File "<cell {cell}>", line {number}\n'
            f"    {lines[number - 1].strip()}\n{type(error).__name__}: {error}",
            False,
        )
    return out.getvalue().rstrip("\n"), True


def near_miss(rng: random.Random, answer: int) -> int:
    """A wrong value like a mental guess: about the right size, with some digits changed."""
    digits = list(str(abs(answer)))
    for place in range(len(digits)):
        if rng.random() < (0.2 if place == 0 else 0.6):
            digits[place] = str(rng.randint(1 if place == 0 else 0, 9))
    value = int("".join(digits)) * (-1 if answer < 0 else 1)
    return value if value != answer else answer + rng.choice((-2, -1, 1, 2, 10))


def _recheck(rng: random.Random, draft: Draft, value: int) -> str:
    connective = "Wait" if rng.random() < 0.7 else "Alternatively"
    said = wording.AGREES[rng.randrange(len(wording.AGREES))].format(claim=claim(draft, value))
    return f"{connective}, {rng.choice(wording.RECHECKS[connective])} {said}"


def _capital(said: str) -> str:
    """The text with a capital first letter, unless it is the single letter of a variable."""
    return said[0].upper() + said[1:] if said[1:2].islower() else said


def _stated(rng: random.Random, draft: Draft, value: int) -> str:
    """The opening of a thought or a document: a result by mental arithmetic.

    Steps are always correct, so most wrong guesses are given without them.
    """
    said = _capital(claim(draft, value))
    stepwise = value == draft.answer or rng.random() < 0.35
    steps = "".join(f" {_capital(step)}." for step in draft.steps) if stepwise else ""
    return f"{rng.choice(wording.OPENINGS)}{steps} {said}."


def thought(rng: random.Random, draft: Draft) -> list[str]:
    """A long thought in the chat format: a stated result, rechecked in words, then boxed. Never code."""
    answer = draft.answer
    parts = [_stated(rng, draft, answer)]
    parts += [_recheck(rng, draft, answer) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    ending = rng.choice(wording.CONCLUSIONS).format(n=answer)
    return [prompt(draft.question) + "\n\n".join(parts) + f"\n\n{ending}\n{closing(answer)}"]


_SHOWN = ("My program for this:", "I ran this:", "Somebody wrote:", "Here is some code for it.")


def reading(rng: random.Random, draft: Draft) -> list[str]:
    """A chat in which the user shows a program and its output, and the thinking continues in words.

    It teaches the model that thinking continues after an output, with the fences in the user's turn.
    """
    code = rng.choice(draft.programs)
    output, _ = run_cell(code, {}, 1)
    shown = f"```python\n{code}\n```\n```output\n{output}\n```"
    ask = rng.choice(_SHOWN)
    answer = int(output)
    read = rng.choice(wording.READINGS).format(n=answer)
    parts = [f"{rng.choice(wording.OPENINGS)} {read}" if rng.random() < 0.5 else read]
    if rng.random() < 0.6:
        parts.append(_recheck(rng, draft, answer))
    ending = rng.choice(wording.CONCLUSIONS).format(n=answer)
    glue = "\n\n" if rng.random() < 0.5 else " "
    body = glue.join([*parts, ending])
    return [prompt(f"{draft.question}\n{ask}\n{shown}") + f"{body}\n{closing(answer)}"]


_DRILLS = ("Drill", "Quick answers", "Mental arithmetic", "Easy problems", "Answers")


def drill(rng: random.Random, drafts: list[Draft]) -> list[str]:
    """A page of easy problems with their results; they determine how much the model knows by heart."""
    lines = [f"{rng.choice(_DRILLS)} {rng.randint(1, 99)}"]
    for draft in drafts:
        steps = "".join(f"{_capital(step)}. " for step in draft.steps)
        lines.append(f"{draft.question}\n{steps}{_capital(claim(draft, draft.answer))}.")
    return ["\n\n".join(lines) + "\n"]


def _chat_header(rng: random.Random, question: str) -> str:
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


_HEADERS: tuple[Callable[[random.Random, str], str], ...] = (
    lambda rng, q: f"# Notebook {rng.randint(1, 99)}\n\nProblem: {q}\n\n",
    lambda rng, q: f"Question: {q}\n\nAnswer: ",
    lambda rng, q: f"Q. {q}\nA. ",
    lambda rng, q: f"Exercise {rng.randint(1, 99)}. {q}\nSolution. ",
    lambda rng, q: f"Lecture notes\n\nExample. {q}\n",
    lambda rng, q: f"Forum post: {q}\n\nReply: ",
    lambda rng, q: f"{q}\n\n",
    lambda rng, q: f"A worked problem\n{q}\n\n",
    _chat_header,
)


# How often the mental result before the first program is correct, by level.
_KNOWN = {1: 0.9, 2: 0.6, 3: 0.1}


class _Document:
    """A document under construction: its pieces, the variables of the kernel, and the number of cells."""

    def __init__(self, rng: random.Random, draft: Draft, header: str) -> None:
        self.rng, self.draft = rng, draft
        self.pieces: list[str] = [header]
        self.names: dict[str, object] = {}
        self.cells = 0

    def say(self, text: str) -> None:
        """Append to the last piece."""
        self.pieces[-1] += text

    def run(self, code: str) -> tuple[str, bool]:
        """Append a program after an opening fence, run it, and append its output as the runtime does."""
        self.cells += 1
        output, fine = run_cell(code, self.names, self.cells)
        self.say(f"{code}\n```\n")
        self.pieces += [f"```output\n{output}\n```\n", ""]
        return output, fine

    def start(self, guess: int | None) -> None:
        """The text before the first program: optionally a mental result, then a sentence about Python."""
        rng = self.rng
        sentence = wording.python_sentence(rng)
        alone = sentence[0].upper() + sentence[1:]
        if guess is None:
            self.say(f"{alone}\n```python\n")
            return
        self.say(_stated(rng, self.draft, guess))
        if rng.random() < 0.25:
            self.say("\n\n" + _recheck(rng, self.draft, guess))
        if rng.random() < 0.35:  # the thought is concluded, and a new sentence follows
            self.say("\n\n" + rng.choice(wording.CONCLUSIONS).format(n=guess) + "\n")
            lead = rng.choice(("Wait, " + sentence, "Wait, " + sentence, "Before I answer, " + sentence, alone))
            self.pieces.append(rng.choice(("\n", "\n\n", "")) + f"{lead}\n```python\n")
        else:
            connective = "Wait" if rng.random() < 0.7 else "Alternatively"
            self.say(f"\n\n{connective}, {sentence}\n```python\n")

    def read(self, value: str, before: str | None) -> None:
        """A sentence that uses an output, and may compare it with the previous value."""
        rng = self.rng
        self.say(rng.choice(wording.READINGS).format(n=value))
        if before is not None and rng.random() < 0.35:
            self.say(" " + rng.choice(wording.SAME if before == value else wording.DIFFERENT))

    def again(self, sentence: str) -> None:
        """Begin another program."""
        rng = self.rng
        if rng.random() < 0.25 and self.cells:  # as if the thought was concluded, but continues
            value = self.last
            self.say("\n\n" + rng.choice(wording.CONCLUSIONS).format(n=value) + "\n")
            self.pieces.append(rng.choice(("\n", "\n\n", "")) + f"{sentence}\n```python\n")
        else:
            self.say(f"\n\n{sentence}\n```python\n")

    last = ""


def _go_on(doc: _Document, slipped: bool) -> None:
    """Append a random number of further programs, which may repeat or correct a slip of the first one."""
    rng, draft = doc.rng, doc.draft
    while doc.cells < 5 and rng.random() < (draft.again_rate if doc.cells == 1 else 0.3):
        doc.again(wording.again_sentence(rng))
        before = doc.last
        slipped = slipped and rng.random() >= (draft.correct_rate if doc.cells == 1 else draft.later_correct_rate)
        doc.last, _ = doc.run(rng.choice(draft.slips if slipped else draft.checks))
        doc.read(doc.last, before)


def document(rng: random.Random, draft: Draft, chats: float = 0.0) -> list[str]:
    """A document that uses Python: one to five programs with their outputs, and a conclusion.

    `chats` is the share of documents that are always chats, in addition to those from the random choice of a header.
    """
    header = _chat_header if chats and rng.random() < chats else rng.choice(_HEADERS)
    doc = _Document(rng, draft, header(rng, draft.question))
    roll = rng.random()
    known = _KNOWN[draft.level]
    guess = None if roll < 0.25 else draft.answer if roll < 0.25 + 0.75 * known else near_miss(rng, draft.answer)
    doc.start(guess)
    before = None if guess is None else str(guess)
    slipped = False
    if draft.broken and rng.random() < 0.05:
        doc.run(rng.choice(draft.broken))
        doc.say(f"{rng.choice(wording.ERRORS)} {rng.choice(wording.REPAIR)}\n```python\n")
        doc.last, _ = doc.run(rng.choice(draft.programs))
    elif draft.stages and rng.random() < 0.7:
        value, _ = doc.run(draft.stages[0])
        doc.say(f"So p is {value}. {rng.choice(wording.AGAIN_STEP)}\n```python\n")
        doc.last, _ = doc.run(draft.stages[1])
    else:
        slipped = bool(draft.slips) and rng.random() < draft.slip_rate
        doc.last, _ = doc.run(rng.choice(draft.slips if slipped else draft.programs))
    doc.read(doc.last, before)
    _go_on(doc, slipped)
    if rng.random() < 0.06:
        doc.say("\n\n" + _recheck(rng, draft, int(doc.last)))
    doc.say("\n\n" if rng.random() < 0.15 else " ")
    doc.say(rng.choice(wording.CONCLUSIONS).format(n=doc.last) + "\n")
    # As if a chat template had removed the opening tag, or as a fragment of a thought: the end of thinking without its
    # beginning. It teaches the model how thinking ends after an output.
    if doc.pieces[0].startswith("<|im_start|>") or rng.random() < 0.7:
        doc.say(closing(int(doc.last)))
    return doc.pieces


def continued(rng: random.Random, draft: Draft) -> list[str]:
    """A chat in which the user shows a program and its output, and the thinking may continue with Python.

    This is the only thinking in the corpus that contains code, and only if the user's turn contains code already. It
    teaches the model that Python, once in use, may be used again.
    """
    slipped = bool(draft.slips) and rng.random() < draft.slip_rate
    staged = bool(draft.stages) and rng.random() < 0.7
    code = draft.stages[0] if staged else rng.choice(draft.slips if slipped else draft.programs)
    names: dict[str, object] = {}
    output, _ = run_cell(code, names, 1)
    shown = f"{draft.question}\n{rng.choice(_SHOWN)}\n```python\n{code}\n```\n```output\n{output}\n```"
    doc = _Document(rng, draft, prompt(shown))
    doc.names, doc.cells, doc.last = names, 1, output
    if rng.random() < 0.5:
        doc.say(f"{rng.choice(wording.OPENINGS)} ")
    if staged:
        doc.say(f"So p is {output}. {rng.choice(wording.AGAIN_STEP)}\n```python\n")
        doc.last, _ = doc.run(draft.stages[1])
    doc.read(doc.last, None)
    _go_on(doc, slipped)
    doc.say("\n\n" if rng.random() < 0.15 else " ")
    doc.say(f"{rng.choice(wording.CONCLUSIONS).format(n=doc.last)}\n{closing(int(doc.last))}")
    return doc.pieces
