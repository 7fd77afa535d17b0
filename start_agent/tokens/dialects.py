"""The dialects for ``--dialect``: how a model calls code while thinking, and how the output is inserted.

There are two forms of executed code:

- **fenced blocks** of certain languages, read by the rules of ``fences``: the default, and what most models write;
- **tags**: everything between ``<code>`` and ``</code>``, anywhere in a line. Then fenced blocks are plain text, except
  one that contains all of the code between the tags, which is unwrapped.

Tool calls by special tokens or JSON arguments are not supported.

A package adds a dialect by an entry point of the group ``start_agent.dialects`` whose value is a ``Dialect``; see
``start_agent.plugins``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from start_agent.plugins import Registry
from start_agent.tokens.fences import opening, program


@dataclass(frozen=True, slots=True)
class Dialect:
    """The syntax of code calls and outputs.

    Attributes:
        name: for ``--dialect``.
        code_open, code_close: the tags around executed code; empty for fenced blocks.
        languages: the languages of fenced blocks that are executed, in lower case; empty for those of ``--languages``.
        opening: the end of a hint that opens code, including its line break; empty for the tag, or for a fence with the
            first language.
        output_open, output_close: the texts around an output, each with its line break.

    Raises:
        ValueError: only one tag, or a tag with white space; languages together with tags; a text without a line break;
            an opening that opens no code.
    """

    name: str
    code_open: str = ""
    code_close: str = ""
    languages: tuple[str, ...] = ()
    opening: str = ""
    output_open: str = "```output\n"
    output_close: str = "```\n"

    def __post_init__(self) -> None:
        tags = [tag for tag in (self.code_open, self.code_close) if tag]
        if len(set(tags)) == 1 or any(tag.split() != [tag] for tag in tags):
            raise ValueError(f"the dialect {self.name!r} needs two different tags or none, without white space")
        if self.tagged and self.languages:
            raise ValueError(f"the dialect {self.name!r} has tags, so it must not have languages")
        if not self.opening:
            fence = f"```{self.languages[0]}\n" if self.languages else "```python\n"
            object.__setattr__(self, "opening", f"{self.code_open}\n" if self.tagged else fence)
        for text in (self.opening, self.output_open, self.output_close):
            if not text.strip() or not text.endswith("\n"):
                raise ValueError(f"the dialect {self.name!r} needs texts that end with a line break, not {text!r}")
        opens = self.opening.startswith(self.code_open) if self.tagged else opening(self.opening.encode()) is not None
        if not opens:
            raise ValueError(f"the opening of the dialect {self.name!r} does not open code: {self.opening!r}")

    @property
    def tagged(self) -> bool:
        """Whether code is between tags."""
        return bool(self.code_open)

    def code_in(self, block: bytes) -> str:
        """The executed code of the text inside a block."""
        if self.tagged:
            first, *lines = block.strip().split(b"\n")
            opened = opening(first)
            if opened is not None and not opened.after_prose:
                closed = lines and opened.fence.closed_by(lines[-1]) == len(lines[-1])
                block = b"\n".join(lines[:-1] if closed else lines) + b"\n"
        return program(block)

    def output(self, text: str) -> str:
        """An output as it is inserted, at the beginning of a line."""
        return f"{self.output_open}{text}\n{self.output_close}"

    def text_in(self, output: str) -> str:
        """The text of an output, which is the inverse of ``output``; text before it is ignored."""
        return output.partition(self.output_open)[2].removesuffix(f"\n{self.output_close}")

    def to_json(self) -> dict[str, Any]:
        """JSON-able, for the ``meta`` of traces."""
        return asdict(self) | {"languages": list(self.languages)}


FENCES = Dialect("fences")

RETOOL = Dialect(
    "retool",
    code_open="<code>",
    code_close="</code>",
    opening="<code>\n```python\n",
    output_open="<interpreter>\n",
    output_close="</interpreter>\n",
)
"""ReTool's (arXiv 2504.11536): a fenced block between tags."""

DIALECTS = Registry("dialect", "start_agent.dialects", Dialect, lambda: (FENCES, RETOOL))
"""The dialects that ``--dialect`` can choose."""


def dialect_of(meta: Mapping[str, Any]) -> Dialect:
    """The dialect of a trace, read from its ``meta``, so that reading a trace needs no plug-in."""
    if "dialect" not in meta:
        return FENCES
    return Dialect(**{**meta["dialect"], "languages": tuple(meta["dialect"]["languages"])})
