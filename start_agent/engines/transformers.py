"""Any causal LM of the hub or of a local folder, on CPU or CUDA, through transformers.

The model runs in a thread of its own, in one batch for all open turns (``batch.py``); turns join and leave at any
step. Each trace keeps its KV cache until it is released: what is inserted into it is fed, nothing else again.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent.config import Runtime
from start_agent.engines.base import REVISION, THREADS, Engine, Turn, TurnRequest
from start_agent.errors import EngineError, InputError, MissingExtraError, ModelError
from start_agent.models import locate
from start_agent.tokenizer import Tokenizer, first_line

if TYPE_CHECKING:
    from start_agent.engines.batch import Batch, Job, Row

logger = logging.getLogger(__name__)


_PARAMETERS_PER_THREAD = 10_000_000


class TransformersOptions(BaseModel):
    """How a model is loaded and run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where the model runs")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the weights; auto is float32 on a CPU, elsewhere the checkpoint's own"
    )
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the model's own limit where unset")
    threads: Runtime[int | None] = Field(None, ge=1, description=THREADS)
    max_batch: Runtime[int] = Field(64, ge=1, description="traces that are open at once; others wait")


Item = tuple[int, ...] | Turn | BaseException


@dataclass(slots=True, eq=False)
class _Ticket:
    """A turn as the event loop's side knows it: where its news go."""

    request: TurnRequest
    live: bool
    loop: asyncio.AbstractEventLoop
    news: asyncio.Queue[Item]
    job: Job | None = None
    cancelled: bool = False


class TransformersEngine(Engine):
    """See the module. The model is loaded on entering ``async with``.

    Args:
        model: a name of the hub, or a local folder.
        options: how it is loaded and run.
    """

    name = "transformers"

    def __init__(self, model: str, options: TransformersOptions | None = None) -> None:
        self.model, self.options = model, options or TransformersOptions()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._closing = False
        # The thread's own:
        self._batch: Batch
        self._rows: dict[str, Row] = {}
        self._tickets: dict[int, _Ticket] = {}
        self._waiting: deque[_Ticket] = deque()

    async def __aenter__(self) -> Self:
        """Load the model and start its thread. Raises ``ModelError`` or ``MissingExtraError``."""
        await asyncio.to_thread(self._load)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"engine {self.model}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the thread after the step it is at; turns under way end with ``EngineError``."""
        self._inbox.put(self._close)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def stream(self, request: TurnRequest) -> AsyncGenerator[tuple[int, ...] | Turn, None]:
        """See ``Engine.stream``."""
        async with aclosing(self._news(request, live=True)) as news:
            async for item in news:
                yield item

    async def generate(self, request: TurnRequest) -> Turn:
        """See ``Engine.generate``; the event loop is woken once."""
        async with aclosing(self._news(request, live=False)) as news:
            async for item in news:
                if isinstance(item, Turn):
                    return item
        raise AssertionError("a turn ended without its Turn")

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``."""
        self._inbox.put(lambda: self._release(trace_id))

    async def _news(self, request: TurnRequest, *, live: bool) -> AsyncGenerator[tuple[int, ...] | Turn, None]:
        self.check(request)
        if self._thread is None or self._failure is not None:
            raise EngineError(f"the engine is not running: {self._failure or 'use it inside `async with`'}")
        ticket = _Ticket(request, live, asyncio.get_running_loop(), asyncio.Queue())
        self._inbox.put(lambda: self._enter(ticket))
        item: Item | None = None
        try:
            while not isinstance(item, Turn):
                item = await ticket.news.get()
                if isinstance(item, BaseException):
                    raise EngineError(f"the engine failed: {first_line(item)}") from item
                yield item
        finally:
            if not isinstance(item, Turn):
                self._inbox.put(lambda: self._cancel(ticket))

    # What follows runs in the engine's thread.

    def _load(self) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtraError(error.name or "transformers", "transformers") from error
        from start_agent.engines.batch import Batch

        self.tokenizer = Tokenizer.from_pretrained(self.model, revision=self.options.revision)
        device = self.options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self.options.dtype if (self.options.dtype, device) != ("auto", "cpu") else "float32"
        try:
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                locate(self.model), revision=self.options.revision, dtype=dtype, attn_implementation="sdpa"
            )
            loaded = loaded.to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"cannot load the model {self.model!r}: {first_line(error)}") from error
        config = loaded.config.get_text_config()
        other = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
        if other:
            raise ModelError(
                f"{self.model!r} has layers of the kinds {', '.join(other)}: this engine runs full attention only"
            )
        limits = [self.options.context_length, config.max_position_embeddings, getattr(config, "sliding_window", None)]
        self.context_length = min(limit for limit in limits if limit)
        self._batch = Batch(loaded, context_length=self.context_length)

    def _run(self) -> None:
        import torch

        # More threads than a small model can feed wait for each other: slower, and far slower on a busy machine.
        parameters = sum(parameter.numel() for parameter in self._batch.model.parameters())
        fitting = max(1, min(torch.get_num_threads(), parameters // _PARAMETERS_PER_THREAD))
        torch.set_num_threads(self.options.threads or fitting)
        with torch.inference_mode():
            while not self._closing:
                try:
                    self._handle_inbox()
                    self._tell(self._batch.step())
                except BaseException as error:
                    # Whatever it was (out of memory, a kernel that failed), the batch's state cannot be trusted.
                    logger.exception("the engine's thread failed")
                    self._fail(error)

    def _handle_inbox(self) -> None:
        """Do what was asked for; wait for something where no turn is under way."""
        while not self._closing:
            idle = self._failure is not None or not self._batch.active
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
            if len(self._batch.rows) >= self.options.max_batch:
                self._waiting.append(ticket)
                return
            row = self._rows[ticket.request.trace_id] = self._batch.open()
        if row.job is not None:
            self._send(ticket, InputError(f"the trace {ticket.request.trace_id!r} has a turn under way"))
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
            self._batch.close(row)
            while self._waiting and len(self._batch.rows) < self.options.max_batch:
                self._enter(self._waiting.popleft())

    def _tell(self, progress: list[tuple[Job, Turn | None]]) -> None:
        """Carry what a step brought to the event loops, in one call for each loop."""
        news: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Item], Item]]] = {}
        for job, turn in progress:
            ticket = self._tickets[id(job)]
            items: list[Item] = []
            if ticket.live:
                settled = len(turn.token_ids) if turn else job.watch.settled
                if settled > job.told:
                    items.append(tuple(job.written[job.told : settled]))
                    job.told = settled
            if turn is not None:
                items.append(turn)
                del self._tickets[id(job)]
            news.setdefault(ticket.loop, []).extend((ticket.news, item) for item in items)
        for loop, items_of_loop in news.items():
            if items_of_loop:
                _call(loop, items_of_loop)

    def _send(self, ticket: _Ticket, item: Item) -> None:
        _call(ticket.loop, [(ticket.news, item)])

    def _close(self) -> None:
        self._closing = True
        self._fail(EngineError("it was closed"))

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        for ticket in [*self._tickets.values(), *self._waiting]:
            self._send(ticket, error)
        self._tickets.clear()
        self._waiting.clear()
        self._rows.clear()
        self._batch.clear()


def _call(loop: asyncio.AbstractEventLoop, items: list[tuple[asyncio.Queue[Item], Item]]) -> None:
    def deliver() -> None:
        for news, item in items:
            news.put_nowait(item)

    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)
