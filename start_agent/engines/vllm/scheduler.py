"""Extends vLLM's schedulers with the turns' stop checkers; they run in vLLM's core process.

They override methods that may change between versions of vLLM: ``compatibility.py`` imports this module and checks
whether they are compatible.

A stop checker in our process is one message behind: at each stop the model has already generated further tokens, and
each token costs a message, an object and an iteration of the event loop. In vLLM's scheduler it reads tokens as they
are generated. The request ends with exactly the token that ends the turn, and without streaming nothing is reported
before.
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

_CHECKER_KEY = "start_agent.tokens.stopping"  # in a request's extra arguments
_STOPPED = RequestStatus.FINISHED_STOPPED

# vLLM warns about every custom scheduler: that it may not be compatible (``compatibility.py`` has checked that), and
# that asynchronous scheduling is not supported (ours supports it).
logging.getLogger("vllm.config.scheduler").addFilter(lambda record: "custom scheduler" not in record.getMessage())


class _Parts(msgspec.Struct, array_like=True):
    """The parts of a stop checker, for sending it to another process."""

    markers: Markers
    state: State
    conditions: StopConditions
    recent: tuple[int, ...]


def extra_arguments(checker: StopChecker) -> dict[str, Any]:
    """The extra arguments of a request whose tokens this checker should read; it must not have read any yet."""
    parts = _Parts(checker.matcher.markers, checker.state, checker.conditions, checker.recent)
    return {_CHECKER_KEY: msgspec.msgpack.encode(parts)}


def preemptions(stop_reason: object) -> tuple[int, int]:
    """Read the ``stop_reason`` of a finished request: its number of preemptions, and the tokens computed again."""
    match stop_reason.split() if isinstance(stop_reason, str) else ():
        case (str(dropped), str(again)):
            return int(dropped), int(again)
    return 0, 0


@dataclass(slots=True)
class _RequestState:
    """A request's checker, and the tokens that were read but not reported; without a checker vLLM behaves as usual.

    ``lost`` is the number of tokens whose KV the latest preemption dropped, until the request resumes.
    """

    checker: StopChecker | None
    pending: list[int] = field(default_factory=list)
    lost: int = 0
    dropped: int = 0
    recomputed_tokens: int = 0


class CheckingScheduler(Scheduler):  # type: ignore[misc] # vLLM has no types
    """Ends each request where its stop checker finds a stop. vLLM calls it with each request's new tokens at every
    step.

    It also counts the cost of preemptions, and returns it in the request's ``stop_reason``, which vLLM does not set
    because stop ids and stop strings are left to the stop checker.
    """

    def __init__(self, vllm_config: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(vllm_config, *arguments, **named)
        self._tokenizer = Tokenizer.from_pretrained(
            vllm_config.model_config.model, revision=vllm_config.model_config.revision
        )
        self._matchers: dict[Markers, Matcher] = {}
        self._states: WeakKeyDictionary[Any, _RequestState] = WeakKeyDictionary()

    def schedule(self, *arguments: Any, **named: Any) -> Any:
        """Schedule the next step, and count the tokens that requests compute again after preemptions."""
        step = super().schedule(*arguments, **named)
        known = step.scheduled_cached_reqs
        if getattr(known, "resumed_req_ids", ()):  # versions without this field are not counted
            for request_id, found in zip(known.req_ids, known.num_computed_tokens, strict=True):
                state = self._state_of(self.requests[request_id])
                state.recomputed_tokens += max(state.lost - found, 0)
                state.lost = 0
        return step

    def _preempt_request(self, request: Any, *arguments: Any, **named: Any) -> None:
        state = self._state_of(request)
        state.lost, state.dropped = request.num_computed_tokens, state.dropped + 1
        super()._preempt_request(request, *arguments, **named)

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *arguments: Any, **named: Any
    ) -> tuple[list[int], bool]:
        """The tokens to report, and whether the request has ended, after the model's new tokens."""
        ids, stopped = super()._update_request_with_output(request, new_token_ids, *arguments, **named)
        state = self._state_of(request)
        if state.checker is None:
            return ids, stopped
        for read, token_id in enumerate(ids, 1):
            if state.checker.push(token_id):
                ids, stopped = ids[:read], True
                request.status = _STOPPED
                break
        if stopped and state.dropped:
            request.stop_reason = f"{state.dropped} {state.recomputed_tokens}"
        if request.sampling_params.output_kind is not RequestOutputKind.FINAL_ONLY:
            return ids, stopped
        state.pending += ids
        return (state.pending, True) if stopped else ([], False)

    def _state_of(self, request: Any) -> _RequestState:
        state = self._states.get(request)
        if state is None:
            packed = (request.sampling_params.extra_args or {}).get(_CHECKER_KEY)
            state = self._states[request] = _RequestState(packed and self._decoded(packed))
        return state

    def _decoded(self, packed: bytes) -> StopChecker:
        parts = msgspec.msgpack.decode(packed, type=_Parts)
        if parts.markers not in self._matchers:
            self._matchers[parts.markers] = Matcher(self._tokenizer, parts.markers)
        return StopChecker(self._matchers[parts.markers], parts.state, parts.conditions, parts.recent)


class CheckingAsyncScheduler(CheckingScheduler, AsyncScheduler):  # type: ignore[misc] # as above
    """The same for vLLM's asynchronous scheduling, which prepares a step while the previous one runs."""


WATCHING: dict[type, type] = {Scheduler: CheckingScheduler, AsyncScheduler: CheckingAsyncScheduler}
"""vLLM's scheduler → ours."""
