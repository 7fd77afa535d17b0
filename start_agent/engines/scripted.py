"""An engine that says what it is told: the public double for testing what is built on start-agent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from start_agent.engines.base import Engine, Turn, TurnRequest, Usage
from start_agent.tokens.stopping import StopKind
from start_agent.tokens.tokenizer import Message, Tokenizer

Script = Sequence[str | Sequence[int]] | Callable[[TurnRequest], str | Sequence[int]]


def byte_tokenizer() -> Tokenizer:
    """A vocabulary of the 256 bytes and the special tokens of ChatML, with a template that opens the thinking."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])

    def render(messages: list[Message]) -> str:
        turns = (f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
        return "".join(turns) + "<|im_start|>assistant\n<think>\n"

    return Tokenizer(backend, eos_ids=[len(alphabet) + 2], render_chat=render)


class ScriptedEngine(Engine):
    """Each turn of a trace says the next entry of the script, token by token, until the stop checker stops it.

    Args:
        script: the turns' texts (special tokens spelled out are meant) or ids, taken in order by each trace; or a
            function of the request. An entry that the stop checker does not stop is followed by the end of sequence.
        tokenizer: the vocabulary; ``byte_tokenizer()`` where none is given.
        context_length: in tokens.

    ``requests`` keeps every request, ``turns`` what was answered, ``released`` the names given back.
    """

    name = model = "scripted"

    def __init__(self, script: Script, *, tokenizer: Tokenizer | None = None, context_length: int = 1 << 20) -> None:
        self.tokenizer = tokenizer or byte_tokenizer()
        self.context_length = context_length
        self.requests: list[TurnRequest] = []
        self.turns: list[Turn] = []
        self.released: list[str] = []
        self._script = script
        self._next: dict[str, int] = defaultdict(int)

    @property
    def instruction(self) -> str:
        """None: what is asked is what the test says."""
        return ""

    async def stream(self, request: TurnRequest) -> AsyncGenerator[tuple[int, ...] | Turn, None]:
        """Say the next entry; see ``Engine.stream``. A script that has run out is an ``IndexError``."""
        self.check(request)
        await asyncio.sleep(0)  # as every engine does, it lets others run and can be cancelled
        self.requests.append(request)
        checker, written, told, stop = request.new_checker(), list[int](), 0, None
        for token_id in self._entry(request):
            written.append(token_id)
            stop = checker.push(token_id)
            if stop is not None or len(written) == request.max_tokens:
                break
            if checker.committed > told:
                yield tuple(written[told : checker.committed])
                told = checker.committed
        kept = tuple(written[: stop.num_kept] if stop else written)
        if kept[told:]:
            yield kept[told:]
        turn = Turn(kept, stop.kind if stop else StopKind.LENGTH, Usage(0, len(request.token_ids), len(written)))
        self.turns.append(turn)
        yield turn

    async def release(self, trace_id: str) -> None:
        """Note the name and start its script over."""
        self.released.append(trace_id)
        self._next.pop(trace_id, None)

    def _entry(self, request: TurnRequest) -> list[int]:
        if callable(self._script):
            entry = self._script(request)
        else:
            entry = self._script[self._next[request.trace_id]]
            self._next[request.trace_id] += 1
        ids = self.tokenizer.encode_template(entry) if isinstance(entry, str) else list(entry)
        return [*ids, *sorted(self.tokenizer.eos_ids)[:1]]
