"""Any model that vLLM runs, through its ``AsyncLLM``; on CPUs with vLLM's CPU build.

Each turn is a request of its own. Prefix caching makes the next turn of a trace cheap: all whole blocks of what was
there are found again, so an insertion costs its own tokens and at most a block more. Two rules keep it so: a trace is
let in only where the cache will probably hold all that the open traces come to need (``admission.py``), and turns of
traces that were let in earlier go first. Where the cache does not hold it, vLLM preempts the trace that was let in
last: it drops its KV and computes it again later. The oldest goes on whatever happens, so all come to their end.

vLLM itself stops at the length; everything else is found by the request's stop checker. It reads the tokens in vLLM's
scheduler (``scheduler.py``) where the installed version takes it (``compatibility.py``), and where nobody listens
nothing is told of a turn before its end; elsewhere it reads them in this process, and gives the request up at the
turn's end.

On a CPU the model has cores of its own (``engines/affinity.py``), unless vLLM binds its threads itself or the
model is sharded: while the engine is open, this process and all that it starts keep off them.

vLLM starts a process of its own: a script that uses this engine needs ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import fields
from itertools import count
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.admission import Admission
from start_agent.engines.affinity import OWN_CORES_VARIABLE, THREADS_VARIABLE, default_threads, kept_off, own_cores
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
    final_turn,
)
from start_agent.engines.turns import TurnReader
from start_agent.errors import ConfigError, EngineError, MissingExtraError, ModelError, first_line
from start_agent.fields import Pairs, Renamed, Runtime, coerce, pairs_fault
from start_agent.logprobs import TokenLogprob, likeliest, token_logprob
from start_agent.models import locate
from start_agent.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_GIB = 1 << 30
_CPU_BLOCK_SIZE = 32  # vLLM's own default on CPUs is 128: four times the tokens to prefill again at each insertion
_CPU_KV_CACHE_GIB = 2.0  # vLLM would take 92% of the memory
_LARGEST_SEED = (1 << 63) - 1
_DEAD = "vLLM's process died; its log says why"

# Set where the user has not: quiet on standard output, nothing sent home, and threads neither bound to a core each
# (``engines/affinity.py`` says which cores they have) nor spinning for the next piece of work, where others may want
# the core.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",
}

# Of torch. Without it vLLM compiles helpers of its sampler when they are first used, also where models run eagerly: the
# first log-probabilities take a minute then.
_COMPILE_DISABLE = "TORCH_COMPILE_DISABLE"

_OWN_OPTIONS = {
    "model": "model",
    "revision": "revision",
    "dtype": "dtype",
    "max_model_len": "context-length",
    "max_num_seqs": "max-num-seqs",
    "gpu_memory_utilization": "gpu-memory-utilization",
    "kv_cache_memory_bytes": "kv-cache-gib",
    "block_size": "block-size",
    "enable_prefix_caching": "prefix-caching",
    "enforce_eager": "enforce-eager",
    "tensor_parallel_size": "tensor-parallel-size",
}
"""Arguments of vLLM's that have an option here, and the option."""

_FIXED = ("disable_log_stats", "scheduler_cls", "skip_tokenizer_init", "logits_processors", "seed", "logprobs_mode")


class VLLMOptions(BaseModel):
    """How vLLM loads and runs a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the weights; auto is float32 on a CPU, elsewhere the checkpoint's own"
    )
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the model's own limit where unset")
    max_num_seqs: Annotated[Runtime[int], Renamed("max_batch")] = Field(
        256, ge=1, description="traces that are open at once; others wait"
    )
    gpu_memory_utilization: Runtime[float] = Field(
        0.9, gt=0, le=1, description="part of a GPU's memory that vLLM may use, weights and KV cache together"
    )
    kv_cache_gib: Runtime[float | None] = Field(None, gt=0, description=KV_CACHE)
    block_size: Runtime[int | None] = Field(
        None, ge=1, description="tokens in a block of the KV cache; unset, 32 on a CPU and elsewhere vLLM's choice"
    )
    prefix_caching: Runtime[bool] = Field(True, description=PREFIX_CACHING)
    enforce_eager: Runtime[bool | None] = Field(
        None, description="no compilation, no CUDA graphs; unset, so on a CPU (it starts much faster)"
    )
    tensor_parallel_size: Runtime[int] = Field(1, ge=1, description="GPUs that share the model")
    threads: Runtime[int | None] = Field(None, ge=1, description=THREADS)
    engine_arg: Pairs = Field({}, description=ENGINE_ARG)
    watch_in_scheduler: Runtime[bool] = Field(
        True, description="find the ends of turns in vLLM's own process, where its version allows; off, it is slower"
    )


class VLLMEngine(Engine):
    """See the module. The model is loaded on entering ``async with``.

    Args:
        model: a name of the hub, or a local folder.
        options: how it is loaded and run; a mapping as well.
    """

    name = "vllm"

    def __init__(self, model: str, options: VLLMOptions | Mapping[str, Any] | None = None) -> None:
        self.model, self.options = model, coerce(VLLMOptions, options)
        self._llm: Any = None
        self._failure: str | None = None
        self._admission = Admission(self.options.max_num_seqs)
        self._numbers = count()
        self._under_way: set[str] = set()
        self._held = ExitStack()
        self.block_size = 1
        self.threads: int | None = None  # of a model on a CPU, once it is open
        self.watches_in_scheduler = False  # where the turns are watched, once it is open

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
        with ExitStack() as held:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what vLLM's imports and settings say of torch is nobody's business
                config = await self._start(held)
            self._held = held.pop_all()
        self._failure = None
        self.context_length = config.model_config.max_model_len
        cache = config.cache_config
        self.block_size = cache.block_size
        capacity = getattr(cache, "kv_cache_size_tokens", None) or cache.num_gpu_blocks * cache.block_size
        self._admission = Admission(self.options.max_num_seqs, capacity, cache.block_size)
        return self

    async def _start(self, held: ExitStack) -> Any:
        """Make ``AsyncLLM``; returns its configuration. What is held until the engine is closed goes on the stack."""
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
            arguments, own = self._arguments(on_cpu=on_cpu), frozenset[int]()
            # On CPUs vLLM's own choice is a worker in a process beside its core, for the sake of threads that are bound
            # to cores one by one. Where they are not: one process, and no message between the two at each step.
            bound = on_cpu and os.environ.get("VLLM_CPU_OMP_THREADS_BIND") != "nobind"
            executor = own_executor() if self.options.tensor_parallel_size == 1 and not bound else None
            if executor is not None:
                arguments["distributed_executor_backend"] = executor
            if on_cpu:
                self.threads = self.options.threads or default_threads()
                own = own_cores(self.threads) if executor is not None else own
            self._refuse_foreign(AsyncEngineArgs, arguments)
            arguments |= self.options.engine_arg
            # Not in a thread: vLLM ties its sockets and its output task to the loop in which it is made.
            config = AsyncEngineArgs(**arguments).create_engine_config()
            self._choose_watch(config.scheduler_config)
            held.enter_context(kept_off(own))
            core = {THREADS_VARIABLE: str(self.threads), OWN_CORES_VARIABLE: ",".join(map(str, sorted(own)))}
            if arguments["enforce_eager"] and _COMPILE_DISABLE not in os.environ:
                core[_COMPILE_DISABLE] = "1"
            with _environment(core if on_cpu else {}):
                self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
            return config
        except (OSError, ValueError) as error:  # pydantic's ValidationError among them
            raise ModelError(f"vLLM does not take the model {self.model!r}: {_reason(error)}") from error
        except RuntimeError as error:
            raise EngineError(f"vLLM did not start with {self.model!r}: {_reason(error)}; its log is above") from error

    def _refuse_foreign(self, kind: type, arguments: Mapping[str, Any]) -> None:
        """Raise ConfigError for an ``engine_arg`` that vLLM does not know, or that is not the user's to set."""
        own = {name: f"it has an option of its own, --{flag}" for name, flag in _OWN_OPTIONS.items()}
        own = dict.fromkeys((*arguments, *_FIXED), "start-agent depends on its value") | own
        known = {field.name for field in fields(kind) if field.init}
        if fault := pairs_fault("engine_arg", self.options.engine_arg, known, own, "AsyncEngineArgs"):
            raise ConfigError(fault)

    def _choose_watch(self, settings: Any) -> None:
        """Decide where the turns are watched, and say so once."""
        import vllm

        from start_agent.engines.vllm.compatibility import watching

        scheduler, reason = None, "as --no-watch-in-scheduler says"
        if self.options.watch_in_scheduler:
            scheduler, reason = watching(settings.get_scheduler_cls())
        self.watches_in_scheduler = scheduler is not None
        if scheduler is not None:
            settings.scheduler_cls = scheduler
            logger.info("vLLM %s: turns are watched in its scheduler", vllm.__version__)
        else:
            logger.warning("vLLM %s: turns are watched in this process, slower (%s)", vllm.__version__, reason)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End vLLM's processes; turns under way end with ``EngineError``."""
        self._fail("it was closed")
        llm, self._llm = self._llm, None
        with self._held:
            if llm is not None:
                if not llm.errored:
                    await llm.abort(list(self._under_way))
                if llm.output_handler is not None:
                    llm.output_handler.cancel()  # else it takes the end of the processes for a failure, and says so
                await asyncio.to_thread(llm.shutdown)  # it waits for its processes

    def stream(self, request: TurnRequest) -> AsyncGenerator[Tokens | Turn, None]:
        """See ``Engine.stream``."""
        return self._run(request, streaming=True)

    async def generate(self, request: TurnRequest) -> Turn:
        """See ``Engine.generate``: vLLM's core reports the turn once, at its end, but where log-probabilities are asked
        for."""
        return await final_turn(self._run(request, streaming=False))

    async def _run(self, request: TurnRequest, *, streaming: bool) -> AsyncGenerator[Tokens | Turn, None]:
        self.check(request)
        if not (request.sampling.temperature == 0 or 0.01 <= request.sampling.temperature <= 2):
            raise ConfigError(f"--temperature {request.sampling.temperature}: vLLM takes 0, and 0.01 to 2")
        self._check_running()
        begun = time.perf_counter()
        held = len(request.token_ids)
        await self._admission.enter(request.trace_id, held + request.max_tokens, held)
        self._check_running()
        queued = time.perf_counter() - begun
        from vllm.inputs import tokens_input

        reader, reused, stop_reason = TurnReader(request), 0, None
        request_id = f"{request.trace_id} {next(self._numbers)}"
        outputs = self._llm.generate(
            tokens_input(list(request.token_ids)),
            self._sampling(request, reader, streaming=streaming),
            request_id,
            priority=self._admission.rank(request.trace_id),  # vLLM takes lower numbers first
        )
        self._under_way.add(request_id)
        try:
            async with aclosing(outputs):  # closing it early aborts the request
                async for output in outputs:
                    reused = output.num_cached_tokens or reused
                    written = output.outputs[0]
                    stop_reason = written.stop_reason
                    if reader.read(written.token_ids, _logprobs(written.logprobs, request.num_logprobs)):
                        break
                    if news := reader.news():
                        yield news
        except Exception as error:
            raise self._failed(error) from error
        finally:
            self._under_way.discard(request_id)
        if not reader.over:
            reason = self._failure or f"vLLM ended a turn early, after {len(reader.written)} tokens"
            raise EngineError(f"the engine failed: {reason}")
        if news := reader.news():
            yield news
        preempted = again = 0
        if self.watches_in_scheduler:
            from start_agent.engines.vllm.scheduler import preemptions

            preempted, again = preemptions(stop_reason)
        turn = reader.turn(
            prompt=held, cached_tokens=reused, queue_seconds=queued, preempted=preempted, recomputed_tokens=again
        )
        self._admission.grown(request.trace_id, held + len(turn.token_ids))
        yield turn

    async def release(self, trace_id: str) -> None:
        """See ``Engine.release``. What is cached stays until its room is needed."""
        self._admission.leave(trace_id)

    def _arguments(self, *, on_cpu: bool) -> dict[str, Any]:
        """The arguments of ``AsyncEngineArgs``; only those that are not vLLM's own choice."""
        options = self.options
        dtype = "float32" if on_cpu and options.dtype == "auto" else options.dtype
        arguments: dict[str, Any] = {
            "model": locate(self.model),
            "revision": options.revision,
            "dtype": dtype,
            "enable_prefix_caching": options.prefix_caching,
            "scheduling_policy": "priority",
            "generation_config": "vllm",  # the model's own sampling defaults must not mix with ours
            "skip_tokenizer_init": True,  # ids in, ids out
            "tensor_parallel_size": options.tensor_parallel_size,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
            "max_num_seqs": options.max_num_seqs,
        }
        block_size = options.block_size or (_CPU_BLOCK_SIZE if on_cpu else None)
        gib = options.kv_cache_gib or (_CPU_KV_CACHE_GIB if on_cpu else None)
        if block_size:
            arguments["block_size"] = block_size
        if gib:
            arguments["kv_cache_memory_bytes"] = int(gib * _GIB)
        if options.context_length:
            arguments["max_model_len"] = options.context_length
        return arguments

    def _sampling(self, request: TurnRequest, reader: TurnReader, *, streaming: bool) -> Any:
        """vLLM's filters apply in our order: temperature, min-p, top-k, top-p."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        watched: dict[str, Any] = {}
        if self.watches_in_scheduler:
            from start_agent.engines.vllm.scheduler import extra_arguments

            watched["extra_args"] = extra_arguments(reader.checker)
        # vLLM takes log-probabilities from the step in which their tokens are reported: they cannot be held back.
        delta = streaming or not self.watches_in_scheduler or request.num_logprobs is not None
        return SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,  # off is 0 on both sides
            min_p=request.sampling.min_p,
            seed=None if request.seed is None else request.seed & _LARGEST_SEED,
            max_tokens=request.max_tokens,
            logprobs=request.num_logprobs,
            ignore_eos=True,  # only what the stop checker finds ends a turn
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if delta else RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
            **watched,
        )

    def _check_running(self) -> None:
        if self._llm is None or self._failure is not None:
            raise EngineError(f"the engine is not running: {self._failure or 'use it inside `async with`'}")

    def _fail(self, reason: str) -> None:
        """From now on nothing runs; those that wait to be let in wait in vain."""
        self._failure = self._failure or reason
        self._admission.refuse(EngineError(f"the engine failed: {self._failure}"))

    def _failed(self, error: Exception) -> EngineError:
        """What a turn raises; an engine that is dead stays so for all later ones."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._llm is None:
            return EngineError(f"the engine failed: {self._failure}")
        if isinstance(error, EngineDeadError) or self._llm.errored:
            self._fail(_DEAD)
            return EngineError(f"the engine failed: {self._failure}")
        return EngineError(f"the engine failed: {_reason(error.__cause__ or error)}")


def _logprobs(found: Sequence[Mapping[int, Any]] | None, number: int | None) -> list[TokenLogprob] | None:
    """vLLM's log-probabilities, where they are asked for: at each place the sampled token's comes first."""
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
    """What is started within finds the values."""
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
    """One line: of pydantic's report the line that says what is wrong."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and "validation error" in lines[0]:
        return lines[1].removeprefix("Value error, ").partition(" [type=")[0]
    return first_line(error)
