"""vLLM's schedulers with the stop checkers of the turns in them; they run in vLLM's core process.

They override methods that vLLM may change from version to version: ``compatibility.py`` imports this module, and looks
whether they fit.

A stop checker that reads the tokens in our process is a message behind: the model has gone on by a token or more at
each of its stops, and each token costs a message, an object and a turn of the event loop. Here it reads them
where they arise, in vLLM's scheduler. The request ends with the very token that ends the turn; where nobody listens, it
says nothing before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from start_agent.tokens.markers import Markers, Matcher, State
from start_agent.tokens.stopping import StopChecker, StopConditions
from start_agent.tokens.tokenizer import Tokenizer

_WATCH = "start_agent.tokens.stopping"  # the key among a request's extra arguments
_STOPPED = RequestStatus.FINISHED_STOPPED

# vLLM warns of every scheduler but its own: that it may not fit (``compatibility.py`` has looked), and that it does
# without asynchronous scheduling (ours does not).
logging.getLogger("vllm.config.scheduler").addFilter(lambda record: "custom scheduler" not in record.getMessage())


class _Parts(msgspec.Struct, array_like=True):
    """What a stop checker is made of, on its way between the processes."""

    markers: Markers
    state: State
    conditions: StopConditions
    recent: tuple[int, ...]


def extra_arguments(checker: StopChecker) -> dict[str, Any]:
    """Those of a request whose tokens such a checker shall read; it has not read any yet."""
    parts = _Parts(checker.matcher.markers, checker.state, checker.conditions, checker.recent)
    return {_WATCH: msgspec.msgpack.encode(parts)}


def preemptions(stop_reason: object) -> tuple[int, int]:
    """What a request's ``stop_reason`` says of it once it has ended: how often vLLM dropped its KV while it ran, and
    how many tokens were computed again for that."""
    match stop_reason.split() if isinstance(stop_reason, str) else ():
        case (str(dropped), str(again)):
            return int(dropped), int(again)
    return 0, 0


@dataclass(slots=True)
class _Reading:
    """A request's checker, and what it has read and not told of; without one vLLM goes its own way.

    ``lost`` are the tokens whose KV the latest preemption dropped, until the request goes on.
    """

    checker: StopChecker | None
    pending: list[int] = field(default_factory=list)
    lost: int = 0
    dropped: int = 0
    recomputed_tokens: int = 0


class CheckingScheduler(Scheduler):  # type: ignore[misc] # vLLM has no types
    """Ends each request where its stop checker says. vLLM calls it with the new tokens of each request at every step.

    It also counts what preemptions cost. Nothing of ours travels back but a request's ``stop_reason``, which no other
    rule sets where stop ids and stop strings are left to the stop checker.
    """

    def __init__(self, vllm_config: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(vllm_config, *arguments, **named)
        self._tokenizer = Tokenizer.from_pretrained(
            vllm_config.model_config.model, revision=vllm_config.model_config.revision
        )
        self._matchers: dict[Markers, Matcher] = {}
        self._readings: WeakKeyDictionary[Any, _Reading] = WeakKeyDictionary()

    def schedule(self, *arguments: Any, **named: Any) -> Any:
        """The next step; those that go on after a preemption compute again what is not found in the cache."""
        step = super().schedule(*arguments, **named)
        known = step.scheduled_cached_reqs
        if getattr(known, "resumed_req_ids", ()):  # where a version says it otherwise, it is not counted
            for request_id, found in zip(known.req_ids, known.num_computed_tokens, strict=True):
                reading = self._reading(self.requests[request_id])
                reading.recomputed_tokens += max(reading.lost - found, 0)
                reading.lost = 0
        return step

    def _preempt_request(self, request: Any, *arguments: Any, **named: Any) -> None:
        reading = self._reading(request)
        reading.lost, reading.dropped = request.num_computed_tokens, reading.dropped + 1
        super()._preempt_request(request, *arguments, **named)

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *arguments: Any, **named: Any
    ) -> tuple[list[int], bool]:
        """The tokens to tell of, and whether the request has ended, after those that the model has just written."""
        ids, stopped = super()._update_request_with_output(request, new_token_ids, *arguments, **named)
        reading = self._reading(request)
        if reading.checker is None:
            return ids, stopped
        for read, token_id in enumerate(ids, 1):
            if reading.checker.push(token_id):
                ids, stopped = ids[:read], True
                request.status = _STOPPED
                break
        if stopped and reading.dropped:
            request.stop_reason = f"{reading.dropped} {reading.recomputed_tokens}"
        if request.sampling_params.output_kind is not RequestOutputKind.FINAL_ONLY:
            return ids, stopped
        reading.pending += ids
        return (reading.pending, True) if stopped else ([], False)

    def _reading(self, request: Any) -> _Reading:
        reading = self._readings.get(request)
        if reading is None:
            packed = (request.sampling_params.extra_args or {}).get(_WATCH)
            reading = self._readings[request] = _Reading(packed and self._watch(packed))
        return reading

    def _watch(self, packed: bytes) -> StopChecker:
        parts = msgspec.msgpack.decode(packed, type=_Parts)
        if parts.markers not in self._matchers:
            self._matchers[parts.markers] = Matcher(self._tokenizer, parts.markers)
        return StopChecker(self._matchers[parts.markers], parts.state, parts.conditions, parts.recent)


class CheckingAsyncScheduler(CheckingScheduler, AsyncScheduler):  # type: ignore[misc] # as above
    """The same where vLLM prepares a step while the model is at the one before."""


WATCHING: dict[type, type] = {Scheduler: CheckingScheduler, AsyncScheduler: CheckingAsyncScheduler}
"""By the scheduler that vLLM would take."""
