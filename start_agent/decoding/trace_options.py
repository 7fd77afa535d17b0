"""Options of a single trace, and checks of the hints that settings and traces need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

from hints import Domain, HintLibrary, NoHintError, Placement, join
from sandbox import Session
from start_agent.decoding.actions import FirstHint
from start_agent.decoding.hint_files import in_dialect
from start_agent.decoding.settings import DecodingSettings
from start_agent.errors import ConfigError, did_you_mean
from start_agent.tokens.dialects import Dialect
from start_agent.tokens.prompts import Prompt
from start_agent.tokens.tokenizer import Message

_ID = re.compile(r"[a-z0-9_./-]+")


class TraceOptions(TypedDict, total=False):
    """Optional arguments of a single trace, besides its question and its seed.

    Attributes:
        messages: a conversation instead of a question; see ``ChatFormat.prompt``.
        instruction: a sentence that follows the question or the user's last message; empty for none. Default: the
            solver's for a question, none for a conversation.
        session: an open sandbox session to run the cells in, with its variables. The caller closes it. Default: the
            trace opens its own with its first cell.
        trace_id: the trace's id for the engine; default: a new id.
        keep: keep what the engine has cached for the trace when it ends. The caller frees it with
            ``engine.release(trace_id)``.
        first_hint: the id of a hint of the library, or any other text, to insert at the beginning of the thinking. A
            word of lower-case letters, digits and any of ``_./-`` is an id.
        prompt: the rendered prompt, or the caller's own ids; default: render the question or the messages.
    """

    messages: Sequence[Message] | None
    instruction: str | None
    session: Session | None
    trace_id: str | None
    keep: bool
    first_hint: str | None
    prompt: Prompt | None


def first_hint_of(given: str | None, library: HintLibrary, dialect: Dialect) -> FirstHint | None:
    """A hint of the library by its id, translated to the dialect; or any other text as it is.

    Raises:
        ConfigError: a word that looks like an id, and is none of the library.
    """
    if not given:
        return None
    try:
        hint = library[given]
    except NoHintError:
        if _ID.fullmatch(given):
            raise ConfigError(_no_hint(given, [hint.id for hint in library])) from None
        return FirstHint(given)
    return FirstHint(join("", in_dialect(hint, dialect)), hint.id)


def _no_hint(given: str, known: Sequence[str]) -> str:
    guess = did_you_mean(given, known) or (f"ids look like {known[0]!r}." if known else "the library is empty.")
    return f"no hint {given!r:.80} in the library: {guess} A text of one such word ends in a space or a line break"


def check_hints(settings: DecodingSettings, library: HintLibrary) -> None:
    """Raise ``ConfigError`` if the library has no hint that the settings need."""
    needed = [
        placement
        for placement, wanted in (
            (Placement.CONNECTIVE, settings.max_hints),
            (Placement.END_OF_THINK, settings.end_of_think_hints),
        )
        if settings.hints and settings.tools and wanted
    ]
    template = settings.template if settings.domain is Domain.CODE else None
    for placement in needed:
        if not library.select(settings.domain, placement, template=template):
            raise ConfigError(
                f"the hint library has no {settings.domain} hint for the placement {placement}: add one to your file"
            )
