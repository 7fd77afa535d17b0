"""What runs inside vLLM's core process: the model, the watches of the turns, and the end of the process with ours.

Imported by ``VLLMEngine`` alone, once vLLM is known to be there.

A watch that read the tokens in our process would be a message behind: the model would have gone on by a token or more
at each of its stops, and each token would cost a message, an object and a turn of the event loop. Here it reads them
where they arise, in vLLM's scheduler. The request ends with the very token that ends the turn; where nobody listens, it
says nothing before.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.request import RequestStatus

from start_agent.markers import Markers, Matcher, State
from start_agent.tokenizer import Tokenizer
from start_agent.watch import Armed, Watch

OWN_CORES = "START_AGENT_OWN_CORES"
"""The environment's name for the cores on which the model runs, as in "0,1,2"; empty or unset, it runs on all."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WATCH = "start_agent.watch"  # the key among a request's extra arguments

# vLLM warns of every scheduler but its own: that it may not fit (the extra `vllm` takes one version), and that it does
# without asynchronous scheduling (ours does not).
logging.getLogger("vllm.config.scheduler").addFilter(lambda record: "custom scheduler" not in record.getMessage())


class OneProcess(UniProcExecutor):  # type: ignore[misc] # vLLM has no types
    """Runs the model in the core process itself, which Linux kills when the process that started it is gone.

    vLLM's core waits for requests without end where its parent was killed outright: nobody is left to tell it.
    """

    def _init_executor(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cores := os.environ.get(OWN_CORES):
            with suppress(PermissionError):  # then it shares them
                os.sched_setaffinity(0, map(int, cores.split(",")))  # this thread and those that it will start
        super()._init_executor()


class _Parts(msgspec.Struct, array_like=True):
    """What a watch is made of, on its way between the processes."""

    markers: Markers
    state: State
    armed: Armed
    recent: tuple[int, ...]


def extra_arguments(watch: Watch) -> dict[str, Any]:
    """Those of a request whose tokens such a watch shall read; the watch has not read any yet."""
    parts = _Parts(watch.matcher.markers, watch.state, watch.armed, watch.recent)
    return {_WATCH: msgspec.msgpack.encode(parts)}


@dataclass(slots=True)
class _Reading:
    """A request's watch, and what it has read and not told of; without a watch vLLM goes its own way."""

    watch: Watch | None
    pending: list[int] = field(default_factory=list)


class WatchingScheduler(Scheduler):  # type: ignore[misc]
    """Ends each request where its watch says. vLLM calls it with the new tokens of each request at every step."""

    def __init__(self, vllm_config: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(vllm_config, *arguments, **named)
        self._tokenizer = Tokenizer.from_pretrained(
            vllm_config.model_config.model, revision=vllm_config.model_config.revision
        )
        self._matchers: dict[Markers, Matcher] = {}
        self._readings: WeakKeyDictionary[Any, _Reading] = WeakKeyDictionary()

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        """The tokens to tell of, and whether the request has ended, after those that the model has just written."""
        ids, stopped = super()._update_request_with_output(request, new_token_ids, is_stale)
        reading = self._reading(request)
        if reading.watch is None:
            return ids, stopped
        for read, token_id in enumerate(ids, 1):
            if reading.watch.push(token_id):
                ids, stopped = ids[:read], True
                request.status = RequestStatus.FINISHED_STOPPED
                break
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

    def _watch(self, packed: bytes) -> Watch:
        parts = msgspec.msgpack.decode(packed, type=_Parts)
        if parts.markers not in self._matchers:
            self._matchers[parts.markers] = Matcher(self._tokenizer, parts.markers)
        return Watch(self._matchers[parts.markers], parts.state, parts.armed, parts.recent)


class WatchingAsyncScheduler(WatchingScheduler, AsyncScheduler):  # type: ignore[misc]
    """The same where vLLM prepares a step while the model is at the one before."""


WATCHING = {Scheduler: WatchingScheduler, AsyncScheduler: WatchingAsyncScheduler}
"""By the scheduler that vLLM would take."""
