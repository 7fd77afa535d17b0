"""Dialects: how a model's thoughts call code, and how the output comes back to it. What ``--dialect`` chooses from.

There are two forms of code that is run:

- **fenced blocks** of some languages, read by the rules of ``fences``: the default, and what most models write;
- **tags**: all between ``<code>`` and ``</code>``, wherever in a line they stand. Fenced blocks are text then, but for
  one that holds all of the code between the tags, which is unwrapped.

What a model calls by special tokens or as JSON arguments is neither, and no dialect.

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
    """How code is called.

    Attributes:
        name: for ``--dialect``.
        code_open, code_close: the tags around code that is run; empty where it stands in fenced blocks.
        languages: of the fenced blocks that are run, in lower case; empty for those of ``--languages``.
        opening: what a hint that opens code ends with, its line break included; empty for the tag, or for a fence with
            the first of the languages.
        output_open, output_close: what stands around an output, each with its line break.

    Raises:
        ValueError: only one of the tags, or one with white space; languages beside tags; a text without its line
            break; an opening that opens no code.
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
            raise ValueError(f"the dialect {self.name!r} has tags, so its fences need no languages")
        if not self.opening:
            fence = f"```{self.languages[0]}\n" if self.languages else "```python\n"
            object.__setattr__(self, "opening", f"{self.code_open}\n" if self.tagged else fence)
        for text in (self.opening, self.output_open, self.output_close):
            if not text.strip() or not text.endswith("\n"):
                raise ValueError(f"the dialect {self.name!r} needs texts that end with a line break, not {text!r}")
        opens = self.opening.startswith(self.code_open) if self.tagged else opening(self.opening.encode()) is not None
        if not opens:
            raise ValueError(f"the opening of the dialect {self.name!r} opens no code: {self.opening!r}")

    @property
    def tagged(self) -> bool:
        """Whether code stands between tags."""
        return bool(self.code_open)

    def code_in(self, block: bytes) -> str:
        """What of the text inside a block is run."""
        if self.tagged:
            first, *lines = block.strip().split(b"\n")
            opened = opening(first)
            if opened is not None and not opened.behind_prose:
                closed = lines and opened.fence.closed_by(lines[-1]) == len(lines[-1])
                block = b"\n".join(lines[:-1] if closed else lines) + b"\n"
        return program(block)

    def output(self, text: str) -> str:
        """An output as the model reads it, from the beginning of a line."""
        return f"{self.output_open}{text}\n{self.output_close}"

    def text_in(self, output: str) -> str:
        """The text of an output: the inverse of ``output``, whatever stands before it."""
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
"""What ``--dialect`` chooses from."""


def dialect_of(meta: Mapping[str, Any]) -> Dialect:
    """The dialect of a trace, by its ``meta``, which holds it: reading a trace takes no plug-in."""
    if "dialect" not in meta:
        return FENCES
    return Dialect(**{**meta["dialect"], "languages": tuple(meta["dialect"]["languages"])})
