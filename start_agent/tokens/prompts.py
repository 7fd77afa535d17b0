"""Questions → prompt ids, and whether the prompt has already opened (or closed) the thinking."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from start_agent.errors import PromptError, QuestionError, first_line
from start_agent.tokens.markers import State
from start_agent.tokens.templates import ChatOptions, ChatTemplate, with_options
from start_agent.tokens.thinking import SWITCHES, Family, builtin_families, find_family, read_families
from start_agent.tokens.tokenizer import Message, Tokenizer

_PRIVATE = 0x100000  # plane 16, of private use: characters that stand in for others while a template is rendered
_PROBE = "What is 2 + 3?"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question.

    Attributes:
        token_ids: what the engine is given first.
        thinking: False where the prompt itself has closed the thinking; the model then answers at once.
        think_ends: the markers that end the thinking. A model that never writes one thinks until its end of sequence.
        think_start: where not empty, the model thinks only after it has written this marker.
    """

    token_ids: tuple[int, ...]
    thinking: bool = True
    think_ends: tuple[str, ...] = ("</think>",)
    think_start: str = ""

    @property
    def state(self) -> State:
        """Where the text stands behind the prompt."""
        unopened = self.thinking and bool(self.think_start)
        return State(answering=unopened or not self.thinking, unopened=unopened)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A rendered prompt: its text, with the characters that stand in for others, and what follows the last message."""

    text: str
    tail: str
    written: Mapping[str, str]


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

    def prompt(self, question: str, *, system: str = "", instruction: str = "") -> Prompt:
        """Render a question; see ``render_prompt``."""
        if not question.strip():
            raise QuestionError("the question is empty")
        rendered = self._render(question, system, instruction)
        family = self.family(rendered)
        opened = rendered.tail.rfind(family.start)
        closed = max(rendered.tail.rfind(end) for end in family.ends)
        return Prompt(
            tuple(self.tokenizer.encode_prompt(rendered.text, rendered.written)),
            thinking=opened >= closed and self._switched_off is None,
            think_ends=family.ends,
            think_start=family.start if family.channel and opened < 0 else "",
        )

    def family(self, rendered: _Rendered | None = None) -> Family:
        """The model's family of think markers. Raises ``PromptError`` for channels that are not understood."""
        rendered = rendered or self._render(_PROBE, "", "")
        source = self.renderer.source if isinstance(self.renderer, ChatTemplate) else ""
        options = self.options
        return find_family(
            rendered.tail,
            rendered.text,
            source,
            self._families,
            tokens=self._controls,
            start=options.think_start,
            end=options.think_end,
        )

    def notices(self, system: str = "") -> list[str]:
        """What the user should know before the first question, in a line each."""
        if self.prompt(_PROBE, system=system).thinking:
            return []
        name = self._switched_off or self._switch_that_opens(system)
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

    def _render(self, question: str, system: str, instruction: str) -> _Rendered:
        if self.renderer is None:
            raise PromptError("this model has no chat template: use a chat or reasoning model, or give --chat-template")
        texts = {"user": "\n\n".join(part for part in (question.strip(), instruction) if part), "system": system}
        used = {*"".join(texts.values())}
        free = (chr(code) for code in range(_PRIVATE, _PRIVATE + 0xFFFD) if chr(code) not in used)
        written = {next(free): character for character in sorted(self._guarded & used)}
        table = str.maketrans({character: other for other, character in written.items()})
        messages: list[Message] = [
            {"role": role, "content": texts[role].translate(table)} for role in ("system", "user") if texts[role]
        ]
        ends = [next(free) for _ in messages]
        # Once more with a mark behind each message: is each there, and what follows the last?
        marked = self._call(
            [message | {"content": message["content"] + end} for message, end in zip(messages, ends, strict=True)]
        )
        if any(marked.count(end) != 1 for end in ends):
            raise PromptError("the model's chat template does not show each message exactly once")
        tail = re.split("[" + "".join(ends) + "]", marked)[-1]
        return _Rendered(self._call(messages), tail, written)

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

    def _switch_that_opens(self, system: str) -> str | None:
        """The variable with which the prompt's thinking is open."""
        for name, now, on, _ in self._switches():
            if now != on:
                variables = {**self.options.chat_template_kwargs, name: True}
                other = ChatFormat(self.tokenizer, self.options.model_copy(update={"chat_template_kwargs": variables}))
                if other.prompt(_PROBE, system=system).thinking:
                    return name
        return None


def render_prompt(
    tokenizer: Tokenizer, question: str, *, system: str = "", instruction: str = "", options: ChatOptions | None = None
) -> Prompt:
    """Render a question through the model's chat template.

    The ids are those of transformers' ``apply_chat_template(tokenize=True)``; but a special token that is spelled out
    in what people wrote (``question``, ``system``, ``instruction``) stays text.

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
