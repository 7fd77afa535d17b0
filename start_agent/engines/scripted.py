"""An engine that generates scripted tokens, for tests of code that uses start-agent."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from start_agent.engines.base import Engine, Tokens, Turn, TurnRequest, Usage, final_turn
from start_agent.logprobs import TokenLogprob, token_logprob
from start_agent.tokens.stopping import StopKind
from start_agent.tokens.tokenizer import Message, Tokenizer

Script = Sequence[str | Sequence[int]] | Callable[[TurnRequest], str | Sequence[int]]


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of the 256 bytes and the special tokens of ChatML; its chat template opens the thinking."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])

    def render(messages: list[Message]) -> str:
        turns = (f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
        return "".join(turns) + "<|im_start|>assistant\n<think>\n"

    return Tokenizer(backend, eos_ids=[len(alphabet) + 2], render_chat=render)


def scripted_logprob(token_id: int, number: int, size: int) -> TokenLogprob:
    """The log-probability that a scripted engine gives a token; it differs between ids, so that tests notice a shift.

    The token is the likeliest, with a probability of at least one half; the ids after it share the rest.

    Args:
        token_id: the generated token.
        number: how many of the likeliest tokens are included.
        size: the size of the vocabulary.
    """
    own = 0.5 + token_id % 64 / 128
    top = [(token_id, math.log(own))] + [
        ((token_id + place) % size, math.log((1 - own) / 2**place)) for place in range(1, number)
    ]
    return token_logprob(math.log(own), top[:number])


class ScriptedEngine(Engine):
    """Each turn of a trace generates the next entry of the script, token by token, until the stop checker stops it.

    Args:
        script: the texts (special tokens in them are encoded as such) or ids of the turns, used in order by each trace;
            or a function of the request. If the stop checker does not stop an entry, the end of sequence follows it.
        tokenizer: the tokenizer; ``byte_tokenizer()`` by default.
        context_length: in tokens.

    The log-probabilities are computed from the ids (``scripted_logprob``), because a script has none.

    ``requests`` has all requests, ``turns`` all results, ``released`` the ids of released traces.
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
        """Empty, so that a prompt is exactly what the test gives."""
        return ""

    def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """Generate the next entry; see ``Engine.stream``. Raises ``IndexError`` if the script has no more entries."""
        return self._run(request, streaming=True)

    async def generate(self, request: TurnRequest) -> Turn:
        """See ``Engine.generate``; like the other engines, it reports the turn only at its end."""
        return await final_turn(self._run(request, streaming=False))

    async def _run(self, request: TurnRequest, *, streaming: bool) -> AsyncGenerator[Tokens | Turn, None]:
        self.check(request)
        await asyncio.sleep(0)  # like every engine, it lets other tasks run and can be cancelled
        self.requests.append(request)
        checker, written, settled, stop = request.new_checker(), list[int](), 0, None
        for token_id in self._entry(request):
            written.append(token_id)
            stop = checker.push(token_id)
            if stop is not None or len(written) == request.max_tokens:
                break
            if streaming and (committed := checker.committed) > settled:
                run = written[settled:committed]
                yield Tokens(tuple(run), self._logprobs(request, run))
                settled = committed
        kept = written[: stop.num_kept] if stop else written
        if streaming and (run := kept[settled:]):
            yield Tokens(tuple(run), self._logprobs(request, run))
        usage = Usage(0, len(request.token_ids), len(written))
        turn = Turn(tuple(kept), stop.kind if stop else StopKind.LENGTH, usage, self._logprobs(request, kept))
        self.turns.append(turn)
        yield turn

    async def release(self, trace_id: str) -> None:
        """Record the id and restart its script."""
        self.released.append(trace_id)
        self._next.pop(trace_id, None)

    def _logprobs(self, request: TurnRequest, token_ids: Sequence[int]) -> tuple[TokenLogprob, ...] | None:
        if request.num_logprobs is None:
            return None
        size, number = len(self.tokenizer.pieces), request.num_logprobs
        return tuple(scripted_logprob(token_id, number, size) for token_id in token_ids)

    def _entry(self, request: TurnRequest) -> list[int]:
        if callable(self._script):
            entry = self._script(request)
        else:
            entry = self._script[self._next[request.trace_id]]
            self._next[request.trace_id] += 1
        ids = self.tokenizer.encode_template(entry) if isinstance(entry, str) else list(entry)
        return [*ids, *sorted(self.tokenizer.eos_ids)[:1]]
