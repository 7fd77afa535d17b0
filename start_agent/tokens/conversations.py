"""Prepares conversations for a chat template: roles, thoughts of earlier turns, and guards against injected markers.

Texts of people or models must neither open a turn nor end the thinking. So while a template is rendered, the first
characters of control tokens and think markers in these texts are replaced by other characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from start_agent.errors import PromptError, QuestionError
from start_agent.tokens.tokenizer import Message

ROLES = ("system", "developer", "user", "assistant")
"""The roles of messages in a conversation."""

_SYSTEM_ROLES = ("system", "developer")

THOUGHTS = "reasoning_content"
"""The key of the thoughts in an assistant message."""

OTHER_THOUGHTS = ("thinking", "reasoning")
"""Other keys that some templates use for them (gpt-oss: ``thinking``)."""

_PRIVATE = 0x100000  # plane 16, of private use
_PRIVATE_SIZE = 0xFFFE


def checked(messages: Sequence[Message]) -> list[Message]:
    """Check a conversation; returns it without empty system messages.

    Raises:
        QuestionError: there is no message, or the last one is empty.
        PromptError: a role, key or type is unknown, or the last message is the assistant's.
    """
    if not messages:
        raise QuestionError("the conversation has no messages")
    found = [_checked(message) for message in messages]
    last = found[-1]
    if last["role"] == "assistant":
        raise PromptError("the last message of a conversation must not be the assistant's")
    if not last["content"].strip():
        raise QuestionError("the question is empty" if len(found) == 1 else "the last message is empty")
    return [message for message in found if message["content"].strip() or message["role"] not in _SYSTEM_ROLES]


def _checked(message: Message) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise PromptError("a message needs a role and a content")
    role = message["role"]
    if role not in ROLES:
        raise PromptError(f"a message has the role {role!r:.40}; expected one of {', '.join(ROLES)}")
    known = {"role", "content", THOUGHTS} if role == "assistant" else {"role", "content"}
    unknown = sorted(map(str, message.keys() - known))
    if unknown:
        raise PromptError(f"a message of the role {role} has the unknown key {unknown[0]!r:.40}")
    if not all(isinstance(value, str) for value in message.values()):
        raise PromptError("the content of a message must be text")
    return dict(message)


def arranged(messages: Sequence[Message], *, system: str, instruction: str, developer: bool) -> list[Message]:
    """Arrange a conversation for the template.

    Args:
        messages: checked messages.
        system: a system message to add at the beginning if the conversation has none.
        instruction: a paragraph to append to the last user message; empty for none.
        developer: whether the template has the developer role; otherwise its messages become system messages.
    """
    found = [dict(message) for message in messages]
    for message in found:
        if message["role"] == "developer" and not developer:
            message["role"] = "system"
    if system and not any(message["role"] == "system" for message in found):
        found.insert(0, {"role": "system", "content": system})
    # Templates support one system message, at the beginning.
    first = found[0]["role"]
    leading = [*takewhile(lambda message: message["role"] == first, found)] if first in _SYSTEM_ROLES else []
    if len(leading) > 1:
        joined = "\n\n".join(message["content"] for message in leading)
        found[: len(leading)] = [{"role": first, "content": joined}]
    last = next((message for message in reversed(found) if message["role"] == "user"), None)
    if instruction and last is not None:
        last["content"] = "\n\n".join(part for part in (last["content"], instruction) if part)
    return found


@dataclass(frozen=True, slots=True)
class Guarded:
    """Messages whose texts cannot spell a marker.

    Attributes:
        messages: the messages with guarded characters replaced.
        written: replacement character → original character.
        mark: a character that occurs in none of the messages.
    """

    messages: list[Message]
    written: Mapping[str, str]
    mark: str

    @classmethod
    def of(cls, messages: Sequence[Message], guarded: Collection[str]) -> Guarded:
        """Guard messages. Raises ``PromptError`` if they use all possible replacement characters."""
        used = {character for message in messages for value in message.values() for character in value}
        free = _unused(used)
        try:
            mark = next(free)
            written = {next(free): character for character in sorted(set(guarded) & used)}
        except StopIteration:
            raise PromptError("the messages use all characters of Unicode's private-use plane 16") from None
        table = str.maketrans({character: other for other, character in written.items()})
        texts = [
            {key: value if key == "role" else value.translate(table) for key, value in message.items()}
            for message in messages
        ]
        return cls(texts, written, mark)

    def marked(self) -> list[Message]:
        """The messages with a mark before and after each text."""
        return [
            {
                key: value if key == "role" else self._mark(at, key, "<") + value + self._mark(at, key, ">")
                for key, value in message.items()
            }
            for at, message in enumerate(self.messages)
        ]

    def shown(self, rendered: str) -> Counter[tuple[int, str]]:
        """How often a rendering of ``marked`` shows each text, by the message's index and the text's key.

        Raises:
            PromptError: a text is shown only in part.
        """
        mark = re.escape(self.mark)
        sides = {"<": Counter[tuple[int, str]](), ">": Counter[tuple[int, str]]()}
        for at, key, side in re.findall(rf"{mark}(\d+)(\w+)([<>]){mark}", rendered):
            sides[side][int(at), key] += 1
        if sides["<"] != sides[">"]:
            raise PromptError("the model's chat template shows only a part of a message")
        return sides["<"]

    def tail(self, rendered: str) -> str:
        """The text after the last message in a rendering of ``marked``."""
        return rendered[rendered.rfind(self.mark) + 1 :]

    def template_text(self, rendered: str) -> str:
        """The template's own text in a rendering of ``marked``."""
        mark = re.escape(self.mark)
        return re.sub(rf"{mark}(\d+\w+)<{mark}.*?{mark}\1>{mark}", "", rendered, flags=re.DOTALL)

    def _mark(self, at: int, key: str, side: str) -> str:
        return f"{self.mark}{at}{key}{side}{self.mark}"


def _unused(used: Collection[str]) -> Iterator[str]:
    return (chr(code) for code in range(_PRIVATE, _PRIVATE + _PRIVATE_SIZE) if chr(code) not in used)
