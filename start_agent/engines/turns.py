"""One turn read from an engine that streams ids: what may be told, and where the turn ends."""

from __future__ import annotations

from collections.abc import Sequence

from start_agent.engines.base import Tokens, Turn, TurnRequest, Usage
from start_agent.errors import EngineError
from start_agent.logprobs import TokenLogprob
from start_agent.tokens.stopping import Stop, StopKind


class TurnReader:
    """Pushes ids into the request's stop checker, which alone decides the stop and the trim.

    Engines that run ahead of the stop checker (another process, a server) hand in ids in runs; those behind the end of
    the turn are passed over: they were never in the trace. Log-probabilities are cut where the ids are.
    """

    def __init__(self, request: TurnRequest) -> None:
        self.checker = request.new_checker()
        self.written: list[int] = []
        self._logprobs: list[TokenLogprob] | None = None if request.num_logprobs is None else []
        self._max_tokens = request.max_tokens
        self._stop: Stop | None = None
        self._reported = 0

    @property
    def over(self) -> bool:
        """Whether the turn has ended."""
        return self._stop is not None

    def read(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob] | None = None) -> bool:
        """Read the next ids, up to the end of the turn; returns ``over``.

        Args:
            token_ids: new ones.
            logprobs: theirs, where the request asks for some; else not looked at.

        Raises:
            EngineError: there is not one log-probability for each id.
        """
        if self._logprobs is not None:
            given = logprobs or ()
            if len(given) != len(token_ids):
                raise EngineError(f"{len(given)} log-probabilities came with {len(token_ids)} tokens")
            self._logprobs += given
        for token_id in token_ids:
            if self._stop is not None:
                break
            self.written.append(token_id)
            self._stop = self.checker.push(token_id)
            if self._stop is None and len(self.written) == self._max_tokens:
                self._stop = Stop(StopKind.LENGTH, self._max_tokens)
        return self.over

    def news(self) -> Tokens | None:
        """What has been settled since the last call; None where nothing has."""
        committed = self._stop.num_kept if self._stop else self.checker.committed
        begin = self._reported
        if committed <= begin:
            return None
        self._reported = committed
        return Tokens(tuple(self.written[begin:committed]), self._logprobs_of(begin, committed))

    def turn(
        self, *, prompt: int, cached_tokens: int, queue_seconds: float, preempted: int = 0, recomputed_tokens: int = 0
    ) -> Turn:
        """The turn, once it is over.

        Args:
            prompt: tokens that were handed in.
            cached_tokens: how many of them had their KV already.
            queue_seconds: seconds.
            preempted: how often the engine dropped its KV under way.
            recomputed_tokens: those computed again for that.
        """
        assert self._stop is not None, "the turn is not over"
        generated = len(self.written)
        computed = prompt - cached_tokens + generated - 1 + recomputed_tokens
        usage = Usage(cached_tokens, computed, generated, queue_seconds, preempted, recomputed_tokens)
        kept = self._stop.num_kept
        return Turn(tuple(self.written[:kept]), self._stop.kind, usage, self._logprobs_of(0, kept))

    def _logprobs_of(self, begin: int, end: int) -> tuple[TokenLogprob, ...] | None:
        return None if self._logprobs is None else tuple(self._logprobs[begin:end])
