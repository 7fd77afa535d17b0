"""Conversations → what a chat template is given: roles, the thoughts of earlier turns, and marks around all of it.

What people or models wrote must neither open a turn nor end the thinking: while a template is rendered, other
characters stand in for those with which a control token or a think marker begins.
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
"""Who may speak in a conversation."""

_INSTRUCTING = ("system", "developer")

THOUGHTS = "reasoning_content"
"""The key of an assistant's message under which its thoughts are."""

OTHER_THOUGHTS = ("thinking", "reasoning")
"""Other names of it, which some templates look for (gpt-oss: ``thinking``)."""

_PRIVATE = 0x100000  # plane 16, of private use
_PRIVATE_SIZE = 0xFFFE


def checked(messages: Sequence[Message]) -> list[Message]:
    """A conversation that a prompt can be made of: without empty system messages.

    Raises:
        QuestionError: there is no message, or the last one is empty.
        PromptError: an unknown role, key or type, or a last message that is the assistant's.
    """
    if not messages:
        raise QuestionError("the conversation has no messages")
    found = [_checked(message) for message in messages]
    last = found[-1]
    if last["role"] == "assistant":
        raise PromptError("the last message of a conversation must not be the assistant's: that is what is asked for")
    if not last["content"].strip():
        raise QuestionError("the question is empty" if len(found) == 1 else "the last message is empty")
    return [message for message in found if message["content"].strip() or message["role"] not in _INSTRUCTING]


def _checked(message: Message) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise PromptError("a message needs a role and a content")
    role = message["role"]
    if role not in ROLES:
        raise PromptError(f"a message has the role {role!r:.40}: expected one of {', '.join(ROLES)}")
    known = {"role", "content", THOUGHTS} if role == "assistant" else {"role", "content"}
    unknown = sorted(map(str, message.keys() - known))
    if unknown:
        raise PromptError(f"a message of the role {role} has the key {unknown[0]!r:.40}, which is not understood")
    if not all(isinstance(value, str) for value in message.values()):
        raise PromptError("the content of a message must be text")
    return dict(message)


def arranged(messages: Sequence[Message], *, system: str, instruction: str, developer: bool) -> list[Message]:
    """A conversation as the template is given it.

    Args:
        messages: checked.
        system: put first where the conversation has no message of the system.
        instruction: follows the last message of the user, in a paragraph of its own; none where empty.
        developer: whether the template has that role; otherwise its messages are the system's.
    """
    found = [dict(message) for message in messages]
    for message in found:
        if message["role"] == "developer" and not developer:
            message["role"] = "system"
    if system and not any(message["role"] == "system" for message in found):
        found.insert(0, {"role": "system", "content": system})
    # Templates know one message of the system, at the beginning.
    first = found[0]["role"]
    leading = [*takewhile(lambda message: message["role"] == first, found)] if first in _INSTRUCTING else []
    if len(leading) > 1:
        joined = "\n\n".join(message["content"] for message in leading)
        found[: len(leading)] = [{"role": first, "content": joined}]
    last = next((message for message in reversed(found) if message["role"] == "user"), None)
    if instruction and last is not None:
        last["content"] = "\n\n".join(part for part in (last["content"], instruction) if part)
    return found


@dataclass(frozen=True, slots=True)
class Guarded:
    """Messages in which nothing that people or models wrote spells a marker.

    Attributes:
        messages: with other characters in place of the guarded ones.
        written: the guarded characters, by those that stand in for them.
        mark: a character that is in none of the messages.
    """

    messages: list[Message]
    written: Mapping[str, str]
    mark: str

    @classmethod
    def of(cls, messages: Sequence[Message], guarded: Collection[str]) -> Guarded:
        """Guard messages. Raises ``PromptError`` where they use up all characters that could stand in."""
        used = {character for message in messages for value in message.values() for character in value}
        free = _unused(used)
        try:
            mark = next(free)
            written = {next(free): character for character in sorted(set(guarded) & used)}
        except StopIteration:
            raise PromptError("the messages use all characters of Unicode's private plane 16") from None
        table = str.maketrans({character: other for other, character in written.items()})
        texts = [
            {key: value if key == "role" else value.translate(table) for key, value in message.items()}
            for message in messages
        ]
        return cls(texts, written, mark)

    def marked(self) -> list[Message]:
        """The messages with a mark before and behind each of their texts."""
        return [
            {
                key: value if key == "role" else self._mark(at, key, "<") + value + self._mark(at, key, ">")
                for key, value in message.items()
            }
            for at, message in enumerate(self.messages)
        ]

    def shown(self, rendered: str) -> Counter[tuple[int, str]]:
        """How often a rendering of ``marked`` shows each text, by the message's place and the key of the text.

        Raises:
            PromptError: a text is shown in part.
        """
        mark = re.escape(self.mark)
        sides = {"<": Counter[tuple[int, str]](), ">": Counter[tuple[int, str]]()}
        for at, key, side in re.findall(rf"{mark}(\d+)(\w+)([<>]){mark}", rendered):
            sides[side][int(at), key] += 1
        if sides["<"] != sides[">"]:
            raise PromptError("the model's chat template shows a message in part")
        return sides["<"]

    def tail(self, rendered: str) -> str:
        """What follows the last text in a rendering of ``marked``."""
        return rendered[rendered.rfind(self.mark) + 1 :]

    def template_text(self, rendered: str) -> str:
        """What is the template's own in a rendering of ``marked``."""
        mark = re.escape(self.mark)
        return re.sub(rf"{mark}(\d+\w+)<{mark}.*?{mark}\1>{mark}", "", rendered, flags=re.DOTALL)

    def _mark(self, at: int, key: str, side: str) -> str:
        return f"{self.mark}{at}{key}{side}{self.mark}"


def _unused(used: Collection[str]) -> Iterator[str]:
    return (chr(code) for code in range(_PRIVATE, _PRIVATE + _PRIVATE_SIZE) if chr(code) not in used)
