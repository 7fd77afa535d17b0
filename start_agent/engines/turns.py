"""Reads one turn from an engine that streams ids, up to the end that the stop checker finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from start_agent.engines.base import Tokens, Turn, TurnRequest, Usage, stream_pause
from start_agent.errors import EngineError
from start_agent.logprobs import TokenLogprob
from start_agent.tokens.stopping import Stop, StopKind


class TurnReader:
    """Passes ids to the request's stop checker, which alone decides the stop and the trim.

    Engines that run ahead of the stop checker (another process, a server) give ids in runs; ids after the end of the
    turn are ignored. Log-probabilities are cut like the ids.

    Args:
        request: the turn's request.
        streams: how many turns are streamed at once, which decides the pauses between runs (``stream_pause``).
    """

    def __init__(self, request: TurnRequest, streams: Callable[[], int] = lambda: 1) -> None:
        self.checker = request.new_checker()
        self.written: list[int] = []
        self._logprobs: list[TokenLogprob] | None = None if request.num_logprobs is None else []
        self._max_tokens = request.max_tokens
        self._stop: Stop | None = None
        self._reported = 0
        self._streams = streams
        self._not_before = 0.0  # the next run of tokens, by ``time.monotonic``

    @property
    def over(self) -> bool:
        """Whether the turn has ended."""
        return self._stop is not None

    def read(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob] | None = None) -> bool:
        """Read the next ids, up to the end of the turn; returns ``over``.

        Args:
            token_ids: the new ids.
            logprobs: their log-probabilities; ignored if the request asks for none.

        Raises:
            EngineError: the numbers of ids and log-probabilities differ.
        """
        if self._logprobs is not None:
            logprobs = logprobs or ()
            if len(logprobs) != len(token_ids):
                raise EngineError(f"the engine gave {len(logprobs)} log-probabilities for {len(token_ids)} tokens")
            self._logprobs += logprobs
        for token_id in token_ids:
            if self._stop is not None:
                break
            self.written.append(token_id)
            self._stop = self.checker.push(token_id)
            if self._stop is None and len(self.written) == self._max_tokens:
                self._stop = Stop(StopKind.LENGTH, self._max_tokens)
        return self.over

    def new_tokens(self) -> Tokens | None:
        """The tokens that have become final since the last ones; None if there are none, or if they wait."""
        now, begin = time.monotonic(), self._reported
        if not self.over and now < self._not_before:
            return None
        committed = self._stop.num_kept if self._stop else self.checker.committed
        if committed <= begin:
            return None
        self._reported, self._not_before = committed, now + stream_pause(self._streams())
        return Tokens(tuple(self.written[begin:committed]), self._logprobs_of(begin, committed))

    def turn(
        self, *, prompt: int, cached_tokens: int, queue_seconds: float, preempted: int = 0, recomputed_tokens: int = 0
    ) -> Turn:
        """The result, once the turn is over.

        Args:
            prompt: the number of tokens in the request.
            cached_tokens: how many of them had their KV in the cache.
            queue_seconds: the time before admission, in seconds.
            preempted: how often the engine dropped the turn's KV.
            recomputed_tokens: tokens computed again after preemptions.
        """
        assert self._stop is not None, "the turn is not over"
        generated = len(self.written)
        computed = prompt - cached_tokens + generated - 1 + recomputed_tokens
        usage = Usage(cached_tokens, computed, generated, queue_seconds, preempted, recomputed_tokens)
        kept = self._stop.num_kept
        return Turn(tuple(self.written[:kept]), self._stop.kind, usage, self._logprobs_of(0, kept))

    def _logprobs_of(self, begin: int, end: int) -> tuple[TokenLogprob, ...] | None:
        return None if self._logprobs is None else tuple(self._logprobs[begin:end])
