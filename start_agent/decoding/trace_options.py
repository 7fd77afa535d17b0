"""What may be said of a single trace, and the hints that settings and traces name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from hints import Domain, HintLibrary, NoHintError, Placement, join
from sandbox import Session
from start_agent.decoding.actions import FirstHint
from start_agent.decoding.hint_files import in_dialect
from start_agent.decoding.settings import DecodingSettings
from start_agent.errors import ConfigError
from start_agent.tokens.dialects import Dialect
from start_agent.tokens.prompts import Prompt
from start_agent.tokens.tokenizer import Message


class TraceOptions(TypedDict, total=False):
    """What may be said of a single trace, besides its question and its seed; all of it is optional.

    Attributes:
        messages: a conversation, in place of a question; see ``ChatFormat.prompt``.
        instruction: a sentence that follows the question, or the last message of the user. Unset, it is the solver's
            for a question and none for a conversation; empty, there is none.
        session: a session of the sandbox in which the cells run, with the variables that it has. It stays open: it is
            the caller's. Unset, the trace gets a new one for itself when its first cell runs.
        trace_id: names the trace to the engine; unset, a new name.
        keep: leave what the engine has cached for the trace where it is, however the trace ends: the caller gives it
            back with ``engine.release(trace_id)``.
        first_hint: the id of a hint of the library, or any other text: inserted where the thinking begins.
        prompt: what the question or the messages have been rendered to, or ids of the caller's own; unset, they are
            rendered.
    """

    messages: Sequence[Message] | None
    instruction: str | None
    session: Session | None
    trace_id: str | None
    keep: bool
    first_hint: str | None
    prompt: Prompt | None


def first_hint_of(given: str | None, library: HintLibrary, dialect: Dialect) -> FirstHint | None:
    """A hint of the library, by its id and as the dialect has it, or a text of the caller's own."""
    if not given:
        return None
    try:
        hint = library[given]
    except NoHintError:
        return FirstHint(given)
    return FirstHint(join("", in_dialect(hint, dialect)), hint.id)


def check_hints(settings: DecodingSettings, library: HintLibrary) -> None:
    """Refuse, before any trace, settings for which the library has no hint. Raises ``ConfigError``."""
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
