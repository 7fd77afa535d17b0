"""Questions and conversations → prompt ids, and whether the prompt has already opened (or closed) the thinking."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from start_agent.errors import PromptError, QuestionError, first_line
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
        token_ids: what the engine is given first.
        thinking: False where the prompt itself has closed the thinking; the model then answers at once.
        think_ends: the markers that end the thinking. A model that never writes one thinks until its end of sequence.
        think_start: where not empty, the model thinks only after it has written this marker.
        think_opens: what the model writes first to open its thinking; empty where the prompt has opened it, or where
            the model does not think between markers.
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
        """Where the text stands behind the prompt."""
        unopened = self.thinking and bool(self.think_start)
        return State(answering=unopened or not self.thinking, unopened=unopened)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A rendered prompt.

    Attributes:
        text: with the characters that stand in for others.
        own: what of it is the template's own.
        tail: what follows the last message.
        written: the characters that people wrote, by those that stand in for them.
        thoughts_shown: of the prompt.
    """

    text: str
    own: str
    tail: str
    written: Mapping[str, str]
    thoughts_shown: int

    @property
    def shown(self) -> str:
        """The text with the characters that people wrote."""
        return self.text.translate({ord(other): character for other, character in self.written.items()})


class ChatFormat:
    """How a model's prompts are made: its template with the user's options, and its think markers.

    Args:
        tokenizer: the model's.
        options: the user's.

    Raises:
        ConfigError: a file that cannot be read, or an option that does not go with this model.
    """

    def __init__(self, tokenizer: Tokenizer, options: ChatOptions | None = None) -> None:
        self.tokenizer, self.options = tokenizer, options or ChatOptions()
        self.renderer = with_options(tokenizer.render_chat, self.options)
        own = () if self.options.think_markers is None else read_families(self.options.think_markers)
        self._families = (*own, *builtin_families())
        # What people write spells nothing that begins with one of these.
        markers = (marker for family in self._families for marker in (family.start, *family.ends))
        self._controls = frozenset(tokenizer.controls.values())
        self._guarded = {marker[0] for marker in (*self._controls, *markers)}

    def prompt(
        self,
        asked: str | Sequence[Message],
        *,
        system: str = "",
        instruction: str = "",
        most_tokens: int | None = None,
    ) -> Prompt:
        """Render a question, or a whole conversation.

        The ids are those of transformers' ``apply_chat_template(tokenize=True)``; but a special token or a think marker
        that is spelled out in a message, whoever wrote it, stays text.

        Args:
            asked: a question, whose surrounding white space is dropped; or messages with ``role`` and ``content``. The
                roles are system, developer (system, where the template has no such role), user and assistant. An
                assistant's message may have its thoughts under ``reasoning_content``; the template keeps or drops them,
                ``Prompt.thoughts_shown`` says how many it kept. Several messages of the system at the beginning are
                given to the template as one.
            system: a message of the system, where a conversation has none; none where empty.
            instruction: a sentence that follows the last message of the user, in a paragraph of its own; none where
                empty.
            most_tokens: what is certainly longer is refused before all of it is read.

        Raises:
            QuestionError: no message, an empty last one, or too many tokens.
            PromptError: see ``render_prompt``; or a message with another role, or with keys that are not understood.
        """
        messages = [{"role": "user", "content": asked.strip()}] if isinstance(asked, str) else asked
        messages = conversations.checked(messages)
        rendered = self._render(
            conversations.arranged(messages, system=system, instruction=instruction, developer=self._has_developer)
        )
        if most_tokens is not None and self.tokenizer.exceeds(rendered.shown, most_tokens):
            raise QuestionError(f"the prompt has more than {most_tokens} tokens: shorten the question")
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
        """A prompt of ids that no template has made; at least one.

        Behind its last end of sequence, the markers in it say whether the model thinks. Where there are none, it does
        so from where it opens its thinking, and answers until then.

        Raises:
            PromptError: the template has channels that are not understood.
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
        """The model's family of think markers. Raises ``PromptError`` for channels that are not understood."""
        rendered = rendered or self._render([{"role": "user", "content": _PROBE}])
        return self._find_family(rendered.tail, rendered.own)

    def _find_family(self, tail: str, rendered: str) -> Family:
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
        """What the user should know before the first question, in a line each."""
        if self.prompt(_PROBE, system=system).thinking:
            return []
        name = self._switched_off or self.switch(True, system)
        how = (
            f"switch it on with --chat-template-kwargs '{{\"{name}\": true}}'" if name else "no variable switches it on"
        )
        return [f"the model's chat template has the thinking off, so that nothing is hinted or run: {how}"]

    def digest(self, system: str = "") -> str:
        """The sha256, in hex, of a probe's prompt: another template or vocabulary shows there."""
        ids = self.prompt(_PROBE, system=system).token_ids
        return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()

    @property
    def prints_day(self) -> bool:
        """Whether the prompts depend on the day."""
        return isinstance(self.renderer, ChatTemplate) and self.renderer.prints_day

    @property
    def _source(self) -> str:
        return self.renderer.source if isinstance(self.renderer, ChatTemplate) else ""

    @property
    def _has_developer(self) -> bool:
        return re.search(r"""(['"])developer\1""", self._source) is not None

    def _opening(self, family: Family, rendered: _Rendered) -> str:
        """What the model writes to open its thinking, with the line break that the template has behind it."""
        named = family.named_in(rendered.own + self._source) or family.spelled_with(self._controls)
        if not named and not self.options.think_start:
            return ""
        return family.start + "\n" * (rf"{family.start}\n" in self._source)

    def _render(self, messages: list[Message]) -> _Rendered:
        if self.renderer is None:
            raise PromptError("this model has no chat template: use a chat or reasoning model, or give --chat-template")
        guarded = Guarded.of([self._with_all_keys(message) for message in messages], self._guarded)
        # Once more with marks around each text: is each message there, and what follows the last?
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
        """A message with its thoughts under each of the names that the template looks for."""
        if THOUGHTS not in message or not isinstance(self.renderer, ChatTemplate):
            return message
        return message | {key: message[THOUGHTS] for key in OTHER_THOUGHTS if self.renderer.uses(key)}

    def _call(self, messages: list[Message]) -> str:
        assert self.renderer is not None
        try:
            return str(self.renderer(messages))
        except Exception as error:  # templates are programs of other people: whatever they raise is theirs
            raise PromptError(f"the model's chat template fails on this question: {first_line(error)}") from error

    @cached_property
    def _switched_off(self) -> str | None:
        """The variable by which the template has the thinking off: as it is, it renders what it renders for False."""
        for name, now, on, off in self._switches():
            if now == off != on:
                return name
        return None

    def _switches(self) -> list[tuple[str, str, str, str]]:
        """The variables for thinking that the template has, with what it renders now, with True, and with False."""
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
                except Exception:  # a variable of another kind, or a template that fails: its own prompt will say so
                    continue
                found.append((name, texts[0], texts[1], texts[2]))
        return found

    def switch(self, on: bool, system: str = "") -> str | None:
        """The variable of the template that switches the thinking on, or off; None where none does.

        Args:
            on: what the variable is to be set to.
            system: a message of the system.
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
    """Render a question through the model's chat template; see ``ChatFormat.prompt``.

    Args:
        tokenizer: the model's.
        question: what the user asks; surrounding white space is dropped.
        system: a system message; none where empty.
        instruction: a sentence that follows the question, in a paragraph of its own; none where empty.
        options: of the template and the think markers.

    Raises:
        QuestionError: an empty question.
        PromptError: no chat template, one that fails or drops the question, or one whose channels are not understood.
        ConfigError: see ``ChatFormat``.
    """
    return ChatFormat(tokenizer, options).prompt(question, system=system, instruction=instruction)
