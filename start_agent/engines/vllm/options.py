"""The options of the vLLM engine, and the arguments of vLLM's that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import ENGINE_ARG, KV_CACHE, PREFIX_CACHING, REVISION, THREADS
from start_agent.errors import ConfigError
from start_agent.fields import Pairs, Renamed, Runtime, pairs_fault
from start_agent.models import locate

_GIB = 1 << 30
_CPU_BLOCK_SIZE = 32  # vLLM's own default on CPUs is 128: four times the tokens to prefill again at each insertion
_CPU_KV_CACHE_GIB = 2.0  # vLLM's default is 92% of the memory

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
"""Arguments of vLLM → the option of start-agent to use instead."""

_FIXED = ("disable_log_stats", "scheduler_cls", "skip_tokenizer_init", "logits_processors", "seed", "logprobs_mode")


class VLLMOptions(BaseModel):
    """The options for loading and running a model with vLLM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="data type of the weights; auto is float32 on a CPU, otherwise the checkpoint's"
    )
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the model's limit if unset")
    max_num_seqs: Annotated[Runtime[int], Renamed("max_batch")] = Field(
        256, ge=1, description="most open traces; others wait"
    )
    gpu_memory_utilization: Runtime[float] = Field(
        0.9, gt=0, le=1, description="share of a GPU's memory for vLLM, weights and KV cache together"
    )
    kv_cache_gib: Runtime[float | None] = Field(None, gt=0, description=KV_CACHE)
    block_size: Runtime[int | None] = Field(
        None, ge=1, description="tokens in a block of the KV cache; if unset, 32 on a CPU, otherwise vLLM's default"
    )
    prefix_caching: Runtime[bool] = Field(True, description=PREFIX_CACHING)
    enforce_eager: Runtime[bool | None] = Field(
        None, description="no compilation and no CUDA graphs; if unset, on only on a CPU (it starts much faster)"
    )
    tensor_parallel_size: Runtime[int] = Field(1, ge=1, description="GPUs that share the model")
    threads: Runtime[int | None] = Field(None, ge=1, description=THREADS)
    engine_arg: Pairs = Field({}, description=ENGINE_ARG)
    watch_in_scheduler: Runtime[bool] = Field(
        True, description="detect stops in vLLM's own process, if its version allows; off is slower"
    )


def engine_args(model: str, options: VLLMOptions, *, on_cpu: bool) -> dict[str, Any]:
    """The arguments of ``AsyncEngineArgs`` that differ from vLLM's defaults, without ``engine_arg``."""
    dtype = "float32" if on_cpu and options.dtype == "auto" else options.dtype
    arguments: dict[str, Any] = {
        "model": locate(model),
        "revision": options.revision,
        "dtype": dtype,
        "enable_prefix_caching": options.prefix_caching,
        "scheduling_policy": "priority",
        "generation_config": "vllm",  # the model's sampling defaults must not mix with ours
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


def check_engine_args(options: VLLMOptions, kind: type, arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError for an ``engine_arg`` that vLLM does not know, or that a user may not set."""
    own = {name: f"use the option --{flag}" for name, flag in _OWN_OPTIONS.items()}
    own = dict.fromkeys((*arguments, *_FIXED), "start-agent depends on its value") | own
    known = {field.name for field in fields(kind) if field.init}
    if fault := pairs_fault("engine_arg", options.engine_arg, known, own, "AsyncEngineArgs"):
        raise ConfigError(fault)
