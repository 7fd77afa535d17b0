"""Few-shot rationales for STaR, and the text format of problems, rationales and answers.

A file of them is YAML::

    form:                     # optional, also each of its keys
      question: "Q: {question}\\nA:"
      hint: "Q: {question}\\nThe right answer is {answer}.\\nA:"
      begin: " "
      conclusion: " The answer is {answer}."
      separator: "\\n\\n"
    rationales:
      - question: There are 3 cars, and 2 more arrive. How many are there?
        rationale: There were 3 cars. 2 more arrive. 3 + 2 = 5.
        answer: 5

or JSON lines with the fields of a rationale and the default form. A text then consists of ``question``, ``begin``, the
rationale and ``conclusion``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from start_agent.data.dataset import read_jsonl
from start_agent.errors import ConfigError, DataError
from start_agent.fields import read_yaml
from start_agent.problem import Problem
from start_agent.tasks.prompts import question_text

_FIELD = re.compile(r"\{(question|answer)\}")


class Form(BaseModel):
    """The text format of problems, rationales and answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field("Q: {question}\nA:", description="the prompt")
    hint: str = Field("Q: {question}\nThe right answer is {answer}.\nA:", description="the prompt with the answer")
    begin: str = Field(" ", description="text before a rationale")
    conclusion: str = Field(" The answer is {answer}.", description="text after a rationale")
    separator: str = Field("\n\n", min_length=1, description="text after an example, which also stops generation")

    @field_validator("question", "hint", "conclusion")
    @classmethod
    def _has_its_placeholders(cls, template: str, info: Any) -> str:
        wanted = {"question": ["question"], "hint": ["question", "answer"], "conclusion": ["answer"]}[info.field_name]
        if sorted(_FIELD.findall(template)) != sorted(wanted):
            raise ValueError("must contain " + " and ".join(f"{{{name}}}" for name in wanted) + ", each once")
        if info.field_name == "conclusion" and not template.partition("{answer}")[0].strip():
            raise ValueError("must have text before {answer}, by which the answer is found")
        return template

    def prompt(self, problem: Problem, *, hinted: bool = False) -> str:
        """The prompt of a problem."""
        return _filled(self.hint if hinted else self.question, question_text(problem), problem.answer)

    def answer(self, written: str) -> str | None:
        """The answer in the last conclusion of a text; None if it has no conclusion."""
        before, _, after = self.conclusion.partition("{answer}")
        place = written.rfind(before.strip())
        if place < 0:
            return None
        found = written[place + len(before.strip()) :].strip()
        return found.removesuffix(after.strip()).strip() or None


@dataclass(frozen=True, slots=True)
class Shots:
    """Few-shot examples with their form. Each is a problem with its rationale and conclusion."""

    form: Form
    examples: tuple[tuple[Problem, str], ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of rationales. Raises ConfigError or DataError with a one-line message."""
        form, rows = Form(), list(read_jsonl(path)) if path.suffix == ".jsonl" else None
        if rows is None:
            content = read_yaml(path)
            if unknown := sorted(set(content) - {"form", "rationales"}):
                raise ConfigError(f"{path}: unknown key {unknown[0]!r}; use form, rationales")
            form, rows = _form(path, content.get("form")), content.get("rationales")
        if not isinstance(rows, list) or not rows:
            raise DataError(f"{path} has no rationales: it needs a list of question, rationale, answer")
        examples = tuple(_example(path, number, row, form) for number, row in enumerate(rows, start=1))
        return cls(form, examples)

    def prefix(self, *, hinted: bool) -> str:
        """The text before a prompt: all examples, each after the same kind of prompt."""
        return "".join(
            self.form.prompt(problem, hinted=hinted) + written + self.form.separator
            for problem, written in self.examples
        )


def _filled(template: str, question: str, answer: str) -> str:
    """The template with its placeholders filled; inserted text is not expanded again."""
    values = {"question": question, "answer": answer}
    return _FIELD.sub(lambda place: values[place[1]], template)


def _form(path: Path, given: object) -> Form:
    try:
        return Form.model_validate({} if given is None else given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(["form", *map(str, first["loc"])])
        raise ConfigError(f"{path}: {name}: {first['msg'].removeprefix('Value error, ')}") from error


def _example(path: Path, number: int, row: object, form: Form) -> tuple[Problem, str]:
    names = ("question", "rationale", "answer")
    if not isinstance(row, dict) or sorted(row) != sorted(names):
        raise DataError(f"{path}, rationale {number}: must have exactly the keys {', '.join(names)}")
    question, rationale, answer = (str(row[name]).strip() for name in names)
    if not (question and rationale and answer):
        raise DataError(f"{path}, rationale {number}: a field is empty")
    written = f"{form.begin}{rationale}{_filled(form.conclusion, question, answer)}"
    if form.separator in written:
        raise DataError(f"{path}, rationale {number}: contains the separator {form.separator!r}, which would end it")
    return Problem(question, answer), written
