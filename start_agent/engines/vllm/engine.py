"""The engine that runs models with vLLM's ``AsyncLLM``; on CPUs with vLLM's CPU build.

Each turn is a separate request. Prefix caching makes the next turn of a trace cheap: all complete blocks are found in
the cache, so an insertion costs its own tokens and at most one block more. Two rules keep it so: a trace is admitted
only if the cache probably has room for all that open traces will need (``admission.py``), and turns of traces that were
admitted earlier have priority. If the cache is still too small, vLLM preempts the trace admitted last: it drops its KV
and computes it again later. The oldest trace always continues, so all are finished at some time.

vLLM itself stops only at the maximum length; all other stops are detected by the request's stop checker. It reads the
tokens in vLLM's scheduler (``scheduler.py``) if the installed version is compatible (``compatibility.py``), and for a
turn without streaming nothing is reported before its end. Otherwise it reads them in this process, and aborts the
request at the turn's end.

On a CPU the model has reserved cores (``engines/affinity.py``), unless vLLM binds its threads itself or the model is
sharded: while the engine is open, this process and its children do not use them.

vLLM starts its own process, so a script that uses this engine needs ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from itertools import count
from types import TracebackType
from typing import Any, Self

from start_agent.engines.admission import Admission
from start_agent.engines.affinity import OWN_CORES_VARIABLE, THREADS_VARIABLE, default_threads, own_cores, reserved
from start_agent.engines.base import Engine, Tokens, Turn, TurnRequest, final_turn
from start_agent.engines.turns import TurnReader
from start_agent.engines.vllm.options import VLLMOptions, check_engine_args, engine_args
from start_agent.errors import ConfigError, EngineError, MissingExtraError, ModelError, first_line
from start_agent.fields import coerce
from start_agent.logprobs import TokenLogprob, likeliest, token_logprob
from start_agent.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_LARGEST_SEED = (1 << 63) - 1
_DEAD = "vLLM's process died; see its log for the reason"

# Set unless the user has: nothing on standard output, no usage statistics, and threads that are neither bound to one
# core each (``engines/affinity.py`` sets their cores) nor busy-waiting on cores that others may need.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",
}

# A variable of torch. Without it vLLM compiles helpers of its sampler on first use, even if models run eagerly, and the
# first log-probabilities take a minute.
_COMPILE_DISABLE = "TORCH_COMPILE_DISABLE"


class VLLMEngine(Engine):
    """An engine that runs a model with vLLM. The model is loaded on entering ``async with``.

    Args:
        model: a name on the Hub, or a local folder.
        options: how it is loaded and run, also as a mapping.
    """

    name = "vllm"

    def __init__(self, model: str, options: VLLMOptions | Mapping[str, Any] | None = None) -> None:
        self.model, self.options = model, coerce(VLLMOptions, options)
        self._llm: Any = None
        self._failure: str | None = None
        self._admission = Admission(self.options.max_num_seqs)
        self._numbers = count()
        self._active: set[str] = set()
        self._resources = ExitStack()
        self.block_size = 1
        self.threads: int | None = None  # threads of a model on a CPU, set when the engine is open
        self.watches_in_scheduler = False  # whether stops are detected in the scheduler, set when the engine is open

    @property
    def failure(self) -> str | None:
        """See ``Engine.failure``."""
        if self._failure is None and self._llm is not None and self._llm.errored:
            return _DEAD
        return self._failure

    async def __aenter__(self) -> Self:
        """Load the model and start vLLM's processes. Raises ``ModelError``, ``MissingExtraError``, ``EngineError``."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with ExitStack() as resources:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings of vLLM about torch do not concern the user
                config = await self._start(resources)
            self._resources = resources.pop_all()
        self._failure = None
        self.context_length = config.model_config.max_model_len
        cache = config.cache_config
        self.block_size = cache.block_size
        capacity = getattr(cache, "kv_cache_size_tokens", None) or cache.num_gpu_blocks * cache.block_size
        self._admission = Admission(self.options.max_num_seqs, capacity, cache.block_size)
        return self

    async def _start(self, resources: ExitStack) -> Any:
        """Create ``AsyncLLM``; returns its configuration. ``resources`` is closed with the engine."""
        try:
            from vllm import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM

            from start_agent.engines.vllm.compatibility import own_executor
        except ImportError as error:
            raise MissingExtraError(error.name or "vllm", "vllm") from error
        self.tokenizer = await asyncio.to_thread(Tokenizer.from_pretrained, self.model, revision=self.options.revision)
        try:
            on_cpu = current_platform.is_cpu()
            arguments, own = engine_args(self.model, self.options, on_cpu=on_cpu), frozenset[int]()
            # On CPUs vLLM's default is a worker in another process than its core, for threads that are bound to cores
            # one by one. If they are not bound, one process avoids the messages between the two at each step.
            bound = on_cpu and os.environ.get("VLLM_CPU_OMP_THREADS_BIND") != "nobind"
            executor = own_executor() if self.options.tensor_parallel_size == 1 and not bound else None
            if executor is not None:
                arguments["distributed_executor_backend"] = executor
            if on_cpu:
                self.threads = self.options.threads or default_threads()
                own = own_cores(self.threads) if executor is not None else own
            check_engine_args(self.options, AsyncEngineArgs, arguments)
            arguments |= self.options.engine_arg
            # Not in a thread: vLLM binds its sockets and its output task to the current event loop.
            config = AsyncEngineArgs(**arguments).create_engine_config()
            self._choose_watch(config.scheduler_config)
            resources.enter_context(reserved(own))
            core = {THREADS_VARIABLE: str(self.threads), OWN_CORES_VARIABLE: ",".join(map(str, sorted(own)))}
            if arguments["enforce_eager"] and _COMPILE_DISABLE not in os.environ:
                core[_COMPILE_DISABLE] = "1"
            with _environment(core if on_cpu else {}):
                self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
            return config
        except (OSError, ValueError) as error:  # pydantic's ValidationError among them
            raise ModelError(f"vLLM cannot run the model {self.model!r}: {_reason(error)}") from error
        except RuntimeError as error:
            raise EngineError(f"vLLM did not start with {self.model!r}: {_reason(error)}; see its log above") from error

    def _choose_watch(self, settings: Any) -> None:
        """Choose where stops are detected, and log it once."""
        import vllm

        from start_agent.engines.vllm.compatibility import watching

        scheduler, reason = None, "--no-watch-in-scheduler"
        if self.options.watch_in_scheduler:
            scheduler, reason = watching(settings.get_scheduler_cls())
        self.watches_in_scheduler = scheduler is not None
        if scheduler is not None:
            settings.scheduler_cls = scheduler
            logger.info("vLLM %s: stops are detected in its scheduler", vllm.__version__)
        else:
            logger.warning("vLLM %s: stops are detected in this process, slower (%s)", vllm.__version__, reason)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End vLLM's processes; running turns raise ``EngineError``."""
        self._fail("it was closed")
        llm, self._llm = self._llm, None
        with self._resources:
            if llm is not None:
                if not llm.errored:
                    await llm.abort(list(self._active))
                if llm.output_handler is not None:
                    llm.output_handler.cancel()  # otherwise it reports the end of the processes as a failure
                await asyncio.to_thread(llm.shutdown)  # it waits for its processes

    def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """See ``Engine.stream``."""
        return self._run(request, streaming=True)

    async def generate(self, request: TurnRequest) -> Turn:
        """See ``Engine.generate``. vLLM's core reports a turn only at its end, except with log-probabilities."""
        return await final_turn(self._run(request, streaming=False))

    async def _run(self, request: TurnRequest, *, streaming: bool) -> AsyncGenerator[Tokens | Turn, None]:
        self.check(request)
        if not (request.sampling.temperature == 0 or 0.01 <= request.sampling.temperature <= 2):
            raise ConfigError(f"--temperature {request.sampling.temperature}: vLLM supports 0, and 0.01 to 2")
        self._check_running()
        begun = time.perf_counter()
        prompt = len(request.token_ids)
        await self._admission.enter(request.trace_id, prompt + request.max_tokens, prompt)
        self._check_running()
        queued = time.perf_counter() - begun
        from vllm.inputs import tokens_input

        reader, reused, stop_reason = TurnReader(request, self._admission.__len__), 0, None
        request_id = f"{request.trace_id} {next(self._numbers)}"
        outputs = self._llm.generate(
            tokens_input(list(request.token_ids)),
            self._sampling(request, reader, streaming=streaming),
            request_id,
            priority=self._admission.rank(request.trace_id),  # vLLM takes lower numbers first
        )
        self._active.add(request_id)
        try:
            async with aclosing(outputs):  # closing it early aborts the request
                async for output in outputs:
                    reused = output.num_cached_tokens or reused
                    written = output.outputs[0]
                    stop_reason = written.stop_reason
                    if reader.read(written.token_ids, _logprobs(written.logprobs, request.num_logprobs)):
                        break
                    if tokens := reader.new_tokens():
                        yield tokens
        except Exception as error:
            raise self._failed(error) from error
        finally:
            self._active.discard(request_id)
        if not reader.over:
            reason = self._failure or f"vLLM ended a turn too early, after {len(reader.written)} tokens"
            raise EngineError(f"the engine failed: {reason}")
        if tokens := reader.new_tokens():
            yield tokens
        preempted = again = 0
        if self.watches_in_scheduler:
            from start_agent.engines.vllm.scheduler import preemptions

            preempted, again = preemptions(stop_reason)
        turn = reader.turn(
            prompt=prompt, cached_tokens=reused, queue_seconds=queued, preempted=preempted, recomputed_tokens=again
        )
        self._admission.grown(request.trace_id, prompt + len(turn.token_ids))
        yield turn

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``. Cached KV stays until its room is needed."""
        self._admission.leave(trace_id)

    def _sampling(self, request: TurnRequest, reader: TurnReader, *, streaming: bool) -> Any:
        """vLLM's filters apply in our order: temperature, min-p, top-k, top-p."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        watched: dict[str, Any] = {}
        if self.watches_in_scheduler:
            from start_agent.engines.vllm.scheduler import extra_arguments

            watched["extra_args"] = extra_arguments(reader.checker)
        # vLLM reports log-probabilities only in the step of their tokens, so tokens cannot be held back.
        delta = streaming or not self.watches_in_scheduler or request.num_logprobs is not None
        return SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,  # off is 0 on both sides
            min_p=request.sampling.min_p,
            seed=None if request.seed is None else request.seed & _LARGEST_SEED,
            max_tokens=request.max_tokens,
            logprobs=request.num_logprobs,
            ignore_eos=True,  # only the stop checker ends a turn
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if delta else RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
            **watched,
        )

    def _check_running(self) -> None:
        if self._llm is None or self._failure is not None:
            raise EngineError(f"the engine is not running: {self._failure or 'use it inside `async with`'}")

    def _fail(self, reason: str) -> None:
        """Mark the engine as failed, and fail all turns that wait for admission."""
        self._failure = self._failure or reason
        self._admission.fail_waiting(EngineError(f"the engine failed: {self._failure}"))

    def _failed(self, error: Exception) -> EngineError:
        """The exception that a turn raises; a dead engine fails all later turns, too."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._llm is None:
            return EngineError(f"the engine failed: {self._failure}")
        if isinstance(error, EngineDeadError) or self._llm.errored:
            self._fail(_DEAD)
            return EngineError(f"the engine failed: {self._failure}")
        return EngineError(f"the engine failed: {_reason(error.__cause__ or error)}")


def _logprobs(found: Sequence[Mapping[int, Any]] | None, number: int | None) -> list[TokenLogprob] | None:
    """vLLM's log-probabilities, if they are requested; at each position the sampled token comes first."""
    if number is None or found is None:
        return None
    return [
        token_logprob(
            next(iter(place.values())).logprob,
            likeliest({token_id: one.logprob for token_id, one in place.items()}, number),
        )
        for place in found
    ]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the ``with`` block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: BaseException) -> str:
    """The reason in one line; for pydantic's report, the line with the problem."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and "validation error" in lines[0]:
        return lines[1].removeprefix("Value error, ").partition(" [type=")[0]
    return first_line(error)
