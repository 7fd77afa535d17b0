"""The schema of a hint file (version 1), as pydantic models with readable error messages.

Validators are attached to single fields, not to models, so that each error has the location of a key, which
``hints.files`` maps to a line number. The order of the fields in ``HintModel`` matters: a validator sees only the
fields declared above its own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from hints.hint import FENCE, OPENING_FENCE, Domain, Function, Hint, Placement, Template

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Mode(StrEnum):
    """Whether a file extends or replaces the hints read before it."""

    EXTEND = "extend"
    REPLACE = "replace"


class HintModel(BaseModel):
    """One entry of ``hints:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(strict=True, pattern=ID_PATTERN)]
    version: Annotated[int, Field(strict=True, ge=1)] = 1
    domain: Domain
    function: Function
    template: Annotated[Template | None, Field(validate_default=True)] = None
    placement: Placement
    source: Annotated[str, StringConstraints(strict=True, min_length=1)] = "user"
    text: Annotated[str, StringConstraints(strict=True)]

    @field_validator("function")
    @classmethod
    def _function_fits_domain(cls, function: Function, info: ValidationInfo) -> Function:
        domain: Domain | None = info.data.get("domain")
        if domain is not None and function.domain is not domain:
            fitting = ", ".join(f.value for f in Function if f.domain is domain)
            raise ValueError(f"function `{function}` does not go with domain `{domain}`; use one of: {fitting}")
        return function

    @field_validator("template")
    @classmethod
    def _template_fits_function(cls, template: Template | None, info: ValidationInfo) -> Template | None:
        function: Function | None = info.data.get("function")
        if function is Function.DEBUG and template is None:
            choices = ", ".join(t.value for t in Template)
            raise ValueError(f"a `debug` hint needs the key `template`; add it with one of: {choices}")
        if function not in (None, Function.DEBUG) and template is not None:
            raise ValueError(f"`template` goes with function `debug` only, not with `{function}`; remove it")
        return template

    @field_validator("text")
    @classmethod
    def _text_can_be_inserted(cls, text: str, info: ValidationInfo) -> str:
        problem = text_problem(text, info.data.get("placement"))
        if problem is not None:
            raise ValueError(problem)
        return text

    def to_hint(self) -> Hint:
        """The plain, frozen dataclass that the rest of the program uses."""
        return Hint(
            id=self.id,
            version=self.version,
            domain=self.domain,
            function=self.function,
            placement=self.placement,
            text=self.text,
            source=self.source,
            template=self.template,
        )


class HintFileModel(BaseModel):
    """The content of a hint file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    mode: Mode = Mode.EXTEND
    hints: Annotated[list[HintModel], Field(min_length=1)]


def text_problem(text: str, placement: Placement | None) -> str | None:
    """Why a text is not valid as a hint at this placement, and what to do about it; None if it is valid.

    ``placement`` is None if it is itself invalid: then only the rules common to both placements are applied.
    """
    if not text.strip():
        return "the text is empty; write the words to insert, or remove the hint"
    first = text[0]
    if first.isspace():
        return "the text begins with white space, which is added automatically; remove it"
    if placement is Placement.CONNECTIVE:
        if not first.isalnum():
            return f"a connective hint begins with {first!r}; start with a word, the comma is added automatically"
        if first.isupper() and not _starts_with_pronoun(text):
            return f"a connective hint continues a sentence but begins with {first!r}; start in lower case"
    if placement is Placement.END_OF_THINK and first.islower():
        return f"an end_of_think hint is its own sentence but begins with {first!r}; start with a capital"
    return _fence_problem(text)


def _starts_with_pronoun(text: str) -> bool:
    """Whether the text begins with the word "I", which is upper case in the middle of a sentence, too."""
    return text[0] == "I" and not text[1:2].isalnum()


def _fence_problem(text: str) -> str | None:
    if FENCE not in text:
        return None
    if text.count(FENCE) > 1:
        return "the text has more than one ``` fence; keep only the opening one, the model closes it"
    at = text.index(FENCE)
    if at > 0 and text[at - 1] != "\n":
        return "the ``` fence is not at the start of a line; give it its own line (in a block `text: |`)"
    if not text.startswith(OPENING_FENCE, at):
        return "the fence is not ```python alone on its line; write ```python and a line break after it"
    if not text.endswith("\n"):
        return "the text ends inside a line of code; end it with a line break (as a block `text: |` does)"
    return None
