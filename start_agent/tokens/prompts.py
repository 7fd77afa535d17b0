"""Renders questions and conversations to prompt ids, and detects whether the prompt opens or closes the thinking."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from start_agent.errors import ContextLengthError, PromptError, first_line
from start_agent.tokens import conversations
from start_agent.tokens.conversations import OTHER_THOUGHTS, THOUGHTS, Guarded
from start_agent.tokens.markers import State
from start_agent.tokens.templates import ChatOptions, ChatTemplate, with_options
from start_agent.tokens.thinking import SWITCHES, Family, builtin_families, find_family, read_families
from start_agent.tokens.tokenizer import Message, Tokenizer

_PROBE = "What is 2 + 3?"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question or conversation.

    Attributes:
        token_ids: the ids of the prompt.
        thinking: False if the prompt has closed the thinking, so that the model answers immediately.
        think_ends: the markers that end the thinking. A model that never writes one thinks until its end of sequence.
        think_start: if not empty, the model thinks only after it has written this marker.
        think_opens: the text with which the model opens its thinking; empty if the prompt has opened it, or if the
            model does not use markers.
        thoughts_shown: how many of the earlier messages' thoughts the template shows; it drops the others.
    """

    token_ids: tuple[int, ...]
    thinking: bool = True
    think_ends: tuple[str, ...] = ("</think>",)
    think_start: str = ""
    think_opens: str = ""
    thoughts_shown: int = 0

    @property
    def state(self) -> State:
        """The state of the text after the prompt."""
        unopened = self.thinking and bool(self.think_start)
        return State(answering=unopened or not self.thinking, unopened=unopened)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A rendered prompt.

    Attributes:
        text: the text with replacement characters.
        own: the template's own part of it.
        tail: the text after the last message.
        written: replacement character → original character.
        thoughts_shown: see ``Prompt``.
    """

    text: str
    own: str
    tail: str
    written: Mapping[str, str]
    thoughts_shown: int

    @property
    def shown(self) -> str:
        """The text with the original characters."""
        return self.text.translate({ord(other): character for other, character in self.written.items()})


class ChatFormat:
    """Makes the prompts of a model, from its template with the user's options and its think markers.

    Args:
        tokenizer: the model's tokenizer.
        options: the user's options.

    Raises:
        ConfigError: a file cannot be read, or an option does not fit this model.
    """

    def __init__(self, tokenizer: Tokenizer, options: ChatOptions | None = None) -> None:
        self.tokenizer, self.options = tokenizer, options or ChatOptions()
        self.renderer = with_options(tokenizer.render_chat, self.options)
        own = () if self.options.think_markers is None else read_families(self.options.think_markers)
        self._families = (*own, *builtin_families())
        # Messages must not spell anything that begins with one of these characters.
        markers = (marker for family in self._families for marker in (family.start, *family.ends))
        self._controls = frozenset(tokenizer.controls.values())
        self._guarded = {marker[0] for marker in (*self._controls, *markers)}
        self._find_family = lru_cache(maxsize=64)(self._searched_family)  # the template's own texts: few are different

    def prompt(
        self,
        question: str | Sequence[Message],
        *,
        system: str = "",
        instruction: str = "",
        most_tokens: int | None = None,
    ) -> Prompt:
        """Render a question, or a conversation.

        The ids are those of transformers' ``apply_chat_template(tokenize=True)``, except that special tokens and think
        markers spelled out in messages stay text.

        Args:
            question: a question, whose surrounding white space is dropped; or messages with ``role`` and ``content``.
                The roles are system, developer (system, if the template has no such role), user and assistant. An
                assistant message may have its thoughts under ``reasoning_content``; the template keeps or drops them,
                ``Prompt.thoughts_shown`` is the number it kept. Several system messages at the beginning are joined.
            system: a system message to add if the conversation has none; empty for none.
            instruction: a paragraph to append to the last user message; empty for none.
            most_tokens: the limit; a prompt that is certainly longer is rejected before all of it is encoded.

        Raises:
            QuestionError: there is no message, or the last one is empty.
            ContextLengthError: there are more than ``most_tokens`` tokens.
            PromptError: see ``render_prompt``; or a message has an unknown role or key.
        """
        messages = [{"role": "user", "content": question.strip()}] if isinstance(question, str) else question
        messages = conversations.checked(messages)
        rendered = self._render(
            conversations.arranged(messages, system=system, instruction=instruction, developer=self._has_developer)
        )
        if most_tokens is not None and self.tokenizer.exceeds(rendered.shown, most_tokens):
            raise ContextLengthError(f"the prompt has more than {most_tokens} tokens; shorten the question")
        family = self.family(rendered)
        opened = rendered.tail.rfind(family.start)
        closed = max(rendered.tail.rfind(end) for end in family.ends)
        thinking = opened >= closed and self._switched_off is None
        return Prompt(
            tuple(self.tokenizer.encode_prompt(rendered.text, rendered.written)),
            thinking=thinking,
            think_ends=family.ends,
            think_start=family.start if family.channel and opened < 0 else "",
            think_opens=self._opening(family, rendered) if thinking and opened < 0 else "",
            thoughts_shown=rendered.thoughts_shown,
        )

    def raw(self, token_ids: Sequence[int]) -> Prompt:
        """A prompt of at least one id that was not made by the template.

        The markers after its last end of sequence decide whether the model is thinking. Without markers, it is
        answering until it opens its thinking.

        Raises:
            PromptError: the template has unknown channels.
        """
        ends = self.tokenizer.eos_ids
        last = next((at for at in range(len(token_ids), 0, -1) if token_ids[at - 1] in ends), 0)
        tail = self.tokenizer.decode(token_ids[last:])
        family = self._find_family(tail, "") if self.renderer is None else self.family()
        opened, closed = tail.rfind(family.start), max(tail.rfind(end) for end in family.ends)
        unopened = opened < 0 and closed < 0
        return Prompt(
            tuple(token_ids),
            thinking=unopened or opened > closed,
            think_ends=family.ends,
            think_start=family.start if unopened else "",
        )

    def family(self, rendered: _Rendered | None = None) -> Family:
        """The model's family of think markers. Raises ``PromptError`` for unknown channels."""
        rendered = rendered or self._render([{"role": "user", "content": _PROBE}])
        return self._find_family(rendered.tail, rendered.own)

    def _searched_family(self, tail: str, rendered: str) -> Family:
        options = self.options
        return find_family(
            tail,
            rendered,
            self._source,
            self._families,
            tokens=self._controls,
            start=options.think_start,
            end=options.think_end,
        )

    def notices(self, system: str = "") -> list[str]:
        """Notices for the user before the first question, one line each."""
        if self.prompt(_PROBE, system=system).thinking:
            return []
        name = self._switched_off or self.switch(True, system)
        how = f"turn it on with --chat-template-kwargs '{{\"{name}\": true}}'" if name else "it has no variable for it"
        return [f"the model's chat template turns thinking off, so no hints are inserted and no code is run; {how}"]

    def digest(self, system: str = "") -> str:
        """The sha256, in hex, of the prompt of a test question; it changes with the template or the vocabulary."""
        ids = self.prompt(_PROBE, system=system).token_ids
        return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()

    @property
    def prints_day(self) -> bool:
        """Whether the prompts depend on the current date."""
        return isinstance(self.renderer, ChatTemplate) and self.renderer.prints_day

    @property
    def _source(self) -> str:
        return self.renderer.source if isinstance(self.renderer, ChatTemplate) else ""

    @property
    def _has_developer(self) -> bool:
        return re.search(r"""(['"])developer\1""", self._source) is not None

    def _opening(self, family: Family, rendered: _Rendered) -> str:
        """The text with which the model opens its thinking, with the line break after it as in the template."""
        named = family.named_in(rendered.own + self._source) or family.spelled_with(self._controls)
        if not named and not self.options.think_start:
            return ""
        return family.start + "\n" * (rf"{family.start}\n" in self._source)

    def _render(self, messages: list[Message]) -> _Rendered:
        if self.renderer is None:
            raise PromptError("this model has no chat template; use a chat or reasoning model, or --chat-template")
        guarded = Guarded.of([self._with_all_keys(message) for message in messages], self._guarded)
        # Render also with marks around each text, to check that all messages are shown, and find the text after the
        # last.
        marked = self._call(guarded.marked())
        shown = guarded.shown(marked)
        if any(shown[at, "content"] != 1 for at in range(len(messages))):
            raise PromptError("the model's chat template does not show each message exactly once")
        thoughts = [sum(shown[at, key] for key in (THOUGHTS, *OTHER_THOUGHTS)) for at in range(len(messages))]
        if any(times > 1 for times in thoughts):
            raise PromptError("the model's chat template shows the thoughts of a message more than once")
        return _Rendered(
            self._call(guarded.messages),
            guarded.template_text(marked),
            guarded.tail(marked),
            guarded.written,
            sum(thoughts),
        )

    def _with_all_keys(self, message: Message) -> Message:
        """A message with its thoughts under all keys that the template uses."""
        if THOUGHTS not in message or not isinstance(self.renderer, ChatTemplate):
            return message
        return message | {key: message[THOUGHTS] for key in OTHER_THOUGHTS if self.renderer.uses(key)}

    def _call(self, messages: list[Message]) -> str:
        assert self.renderer is not None
        try:
            return str(self.renderer(messages))
        except Exception as error:  # templates are third-party code and may raise anything
            raise PromptError(f"the model's chat template fails on this question: {first_line(error)}") from error

    @cached_property
    def _switched_off(self) -> str | None:
        """The variable that turns the thinking off: the prompt is the same as with False, but not as with True."""
        for name, now, on, off in self._switches():
            if now == off != on:
                return name
        return None

    def _switches(self) -> list[tuple[str, str, str, str]]:
        """The template's variables for thinking, each with the result without it, with True, and with False."""
        renderer = self.renderer
        if not isinstance(renderer, ChatTemplate):
            return []
        messages: list[Message] = [{"role": "user", "content": _PROBE}]
        found = []
        for name in SWITCHES:
            if renderer.uses(name):
                try:
                    texts = [
                        str(one(messages))
                        for one in (renderer, *(renderer.given(**{name: on}) for on in (True, False)))
                    ]
                except Exception:  # another kind of variable, or a failing template, which its own prompt reports
                    continue
                found.append((name, texts[0], texts[1], texts[2]))
        return found

    def switch(self, on: bool, system: str = "") -> str | None:
        """The template's variable that turns the thinking on or off; None if there is none.

        Args:
            on: the new value of the variable.
            system: a system message.
        """
        for name, now, *others in self._switches():
            if now != others[not on]:
                variables = {**self.options.chat_template_kwargs, name: on}
                other = ChatFormat(self.tokenizer, self.options.model_copy(update={"chat_template_kwargs": variables}))
                if other.prompt(_PROBE, system=system).thinking is on:
                    return name
        return None


def render_prompt(
    tokenizer: Tokenizer, question: str, *, system: str = "", instruction: str = "", options: ChatOptions | None = None
) -> Prompt:
    """Render a question with the model's chat template; see ``ChatFormat.prompt``.

    Args:
        tokenizer: the model's tokenizer.
        question: the user's question; surrounding white space is dropped.
        system: a system message; empty for none.
        instruction: a paragraph after the question; empty for none.
        options: options for the template and the think markers.

    Raises:
        QuestionError: the question is empty.
        PromptError: there is no chat template, or it fails, drops the question or has unknown channels.
        ConfigError: see ``ChatFormat``.
    """
    return ChatFormat(tokenizer, options).prompt(question, system=system, instruction=instruction)
