"""The engine that runs causal LMs from the Hub, a local folder or a GGUF file with transformers, on CPU, CUDA or mps.

The model runs in its own thread, in one batch for all open turns (``batch.py``); turns join and leave at any step. Each
trace keeps its KV cache until it is released, so only new tokens are fed in a later turn. The cache of a released trace
stays until its room is needed, for traces with the same prefix.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import (
    ENGINE_ARG,
    KV_CACHE,
    PREFIX_CACHING,
    REVISION,
    THREADS,
    Engine,
    Tokens,
    Turn,
    TurnRequest,
    stream_pause,
)
from start_agent.errors import EngineError, InputError, MissingExtraError, first_line
from start_agent.fields import Pairs, Renamed, Runtime, coerce
from start_agent.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from start_agent.engines.transformers.batch import Batch
    from start_agent.engines.transformers.rows import Job, Progress, Row

logger = logging.getLogger(__name__)


_PARAMETERS_PER_THREAD = 10_000_000


class TransformersOptions(BaseModel):
    """The options for loading and running a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="device of the model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="data type of the weights; auto is float32 on a CPU, otherwise the checkpoint's"
    )
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the model's limit if unset")
    threads: Runtime[int | None] = Field(None, ge=1, description=THREADS)
    max_num_seqs: Annotated[Runtime[int], Renamed("max_batch")] = Field(
        64, ge=1, description="most open traces; others wait"
    )
    kv_cache_gib: Runtime[float | None] = Field(None, gt=0, description=KV_CACHE)
    prefix_caching: Runtime[bool] = Field(True, description=PREFIX_CACHING)
    engine_arg: Pairs = Field({}, description=ENGINE_ARG)


Item = Tokens | Turn | BaseException


@dataclass(slots=True, eq=False)
class _Ticket:
    """A turn on the event loop's side, with the queue for its items."""

    request: TurnRequest
    live: bool
    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[Item]
    job: Job | None = None
    cancelled: bool = False
    not_before: float = 0.0  # the next run of tokens, by ``time.monotonic``


class TransformersEngine(Engine):
    """An engine that runs a model with transformers. The model is loaded on entering ``async with``.

    Args:
        model: a name on the Hub, a local folder, or a GGUF file.
        options: how it is loaded and run.
    """

    name = "transformers"

    def __init__(self, model: str, options: TransformersOptions | Mapping[str, Any] | None = None) -> None:
        self.model, self.options = model, coerce(TransformersOptions, options)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._closing = False
        # Used only by the thread:
        self._batch: Batch
        self._rows: dict[str, Row] = {}
        self._tickets: dict[int, _Ticket] = {}

    @property
    def failure(self) -> str | None:
        """See ``Engine.failure``."""
        return None if self._failure is None else first_line(self._failure)

    async def __aenter__(self) -> Self:
        """Load the model and start its thread. Raises ``ModelError``, ``ConfigError``, ``MissingExtraError``."""
        if self._thread is not None:
            raise EngineError("the engine is already open")
        await asyncio.to_thread(self._load)
        self._inbox = queue.SimpleQueue()
        self._closing, self._failure = False, None
        self._thread = threading.Thread(target=self._run, name=f"engine {self.model}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the thread after its current step, and release the memory; running turns raise ``EngineError``.

        The engine may be opened again.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(self._close)
            await asyncio.to_thread(thread.join)
            while not self._inbox.empty():
                self._inbox.get()()  # late commands fail because the engine is closed
            await asyncio.to_thread(self._unload)

    def _unload(self) -> None:
        from start_agent.engines.transformers.memory import release_memory

        device = self._batch.passes.device
        del self._batch
        gc.collect()  # models and caches have reference cycles, and device memory should be freed now
        release_memory(device)

    async def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """See ``Engine.stream``."""
        async with aclosing(self._items(request, live=True)) as items:
            async for item in items:
                yield item

    async def generate(self, request: TurnRequest) -> Turn:
        """See ``Engine.generate``; wakes the event loop only once."""
        async with aclosing(self._items(request, live=False)) as items:
            async for item in items:
                if isinstance(item, Turn):
                    return item
        raise AssertionError("a turn ended without its Turn")

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``."""
        self._inbox.put(lambda: self._release(trace_id))

    async def _items(self, request: TurnRequest, *, live: bool) -> AsyncGenerator[Tokens | Turn, None]:
        self.check(request)
        if self._thread is None or self._failure is not None:
            raise EngineError(f"the engine is not running: {self._failure or 'use it inside `async with`'}")
        ticket = _Ticket(request, live, asyncio.get_running_loop(), asyncio.Queue())
        self._inbox.put(lambda: self._enter(ticket))
        item: Item | None = None
        try:
            while not isinstance(item, Turn):
                item = await ticket.items.get()
                if isinstance(item, BaseException):
                    raise EngineError(f"the engine failed: {first_line(item)}") from item
                yield item
        finally:
            if not isinstance(item, Turn):
                self._inbox.put(lambda: self._cancel(ticket))

    # The methods below run in the engine's thread.

    def _load(self) -> None:
        try:
            from start_agent.engines.transformers.loading import load
        except ImportError as error:
            raise MissingExtraError(error.name or "transformers", "transformers") from error
        options = self.options
        self.tokenizer = Tokenizer.from_pretrained(self.model, revision=options.revision)
        self._batch = load(
            self.model,
            revision=options.revision,
            device=options.device,
            dtype=options.dtype,
            context_length=options.context_length,
            places=options.max_num_seqs,
            kv_cache_gib=options.kv_cache_gib,
            prefix_caching=options.prefix_caching,
            arguments=options.engine_arg,
        )
        self.context_length = self._batch.cache.context_length

    def _run(self) -> None:
        import torch

        # Too many threads for a small model wait for each other, which is slower, and much slower on a busy machine.
        parameters = sum(parameter.numel() for parameter in self._batch.passes.model.parameters())
        fitting = max(1, min(torch.get_num_threads(), parameters // _PARAMETERS_PER_THREAD))
        torch.set_num_threads(self.options.threads or fitting)
        with torch.inference_mode():
            while not self._closing:
                try:
                    self._handle_inbox()
                    self._report(self._batch.step())
                except BaseException as error:
                    # Whatever the error (a failed kernel, a bug of a model), the batch's state may be inconsistent.
                    logger.exception("the engine's thread failed")
                    self._fail(error)

    def _handle_inbox(self) -> None:
        """Execute all commands; wait for one if no turn is running."""
        while not self._closing:
            idle = self._failure is not None or not self._batch.busy
            try:
                command = self._inbox.get(block=idle)
            except queue.Empty:
                return
            command()

    def _enter(self, ticket: _Ticket) -> None:
        if ticket.cancelled:
            return
        if self._failure is not None:
            self._send(ticket, self._failure)
            return
        row = self._rows.get(ticket.request.trace_id)
        if row is None:
            row = self._rows[ticket.request.trace_id] = self._batch.open()
        if row.job is not None:
            self._send(ticket, InputError(f"the trace {ticket.request.trace_id!r} already has a running turn"))
            return
        ticket.job = self._batch.begin(row, ticket.request)
        self._tickets[id(ticket.job)] = ticket

    def _cancel(self, ticket: _Ticket) -> None:
        ticket.cancelled = True
        self._tickets.pop(id(ticket.job), None)
        row = self._rows.get(ticket.request.trace_id)
        if row is not None and row.job is not None and row.job is ticket.job:
            self._batch.pause(row)

    def _release(self, trace_id: str) -> None:
        row = self._rows.pop(trace_id, None)
        if row is not None:
            ticket = self._tickets.pop(id(row.job), None)
            if ticket is not None:
                self._send(ticket, EngineError(f"the trace {trace_id!r} was released during its turn"))
            self._batch.close(row)

    def _report(self, progress: list[Progress]) -> None:
        """Send the results of a step to the event loops, with one call per loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Item], Item]]] = {}
        now, pause = time.monotonic(), stream_pause(sum(ticket.live for ticket in self._tickets.values()))
        for job, end in progress:
            ticket = self._tickets.get(id(job))
            if ticket is None:
                continue  # cancelled in the meantime
            items: list[Item] = []
            due = end is not None or now >= ticket.not_before
            if ticket.live and due and not isinstance(end, EngineError):
                committed = len(end.token_ids) if end else job.checker.committed
                if committed > job.reported:
                    run = tuple(job.written[job.reported : committed])
                    items.append(Tokens(run, job.logprobs_of(job.reported, committed)))
                    job.reported, ticket.not_before = committed, now + pause
            if end is not None:
                items.append(end)
                del self._tickets[id(job)]
            by_loop.setdefault(ticket.loop, []).extend((ticket.items, item) for item in items)
        for loop, items_of_loop in by_loop.items():
            if items_of_loop:
                _call(loop, items_of_loop)

    def _send(self, ticket: _Ticket, item: Item) -> None:
        _call(ticket.loop, [(ticket.items, item)])

    def _close(self) -> None:
        self._closing = True
        self._fail(EngineError("it was closed"))

    def _fail(self, error: BaseException) -> None:
        self._failure = error.with_traceback(None)  # its frames refer to the model and its tensors
        for ticket in self._tickets.values():
            self._send(ticket, error)
        self._tickets.clear()
        self._rows.clear()


def _call(loop: asyncio.AbstractEventLoop, items: list[tuple[asyncio.Queue[Item], Item]]) -> None:
    def deliver() -> None:
        for queue_of_turn, item in items:
            queue_of_turn.put_nowait(item)

    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)
