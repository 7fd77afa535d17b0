"""Loads a causal LM for the transformers engine, with checks before and a trial run after reading the weights."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import torch
import transformers

from start_agent.engines.transformers.architecture import Architecture, examine, keep_long_factors
from start_agent.engines.transformers.batch import Batch
from start_agent.engines.transformers.memory import GIB, cache_bytes, out_of_memory, release_memory
from start_agent.errors import ConfigError, ModelError, first_line
from start_agent.fields import pairs_fault
from start_agent.gguf import pretrained
from start_agent.models import locate

logger = logging.getLogger(__name__)

_ARGUMENTS = frozenset(
    {
        *("adapter_kwargs", "cache_dir", "code_revision", "device_map", "experts_implementation", "force_download"),
        *(
            "ignore_mismatched_sizes",
            "key_mapping",
            "local_files_only",
            "max_memory",
            "offload_buffers",
            "offload_folder",
        ),
        *(
            "proxies",
            "quantization_config",
            "subfolder",
            "trust_remote_code",
            "use_safetensors",
            "variant",
            "weights_only",
        ),
    }
)
"""The arguments of ``PreTrainedModel.from_pretrained`` (transformers 5.19) that a user may set."""

_OWN_OPTIONS = {
    "dtype": "use the option --dtype",
    "torch_dtype": "use the option --dtype",
    "revision": "use the option --revision",
    "attn_implementation": "the engine chooses it: sdpa, or eager if the model needs it",
    "gguf_file": "use --model with the file",
    "token": "set HF_TOKEN in the environment, which is never stored in a run",
}

_LEAST_TOKENS = 64  # in the KV cache: fewer are not enough for a prompt


def load(
    name: str,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    context_length: int | None,
    places: int,
    kv_cache_gib: float | None,
    prefix_caching: bool = True,
    arguments: Mapping[str, Any] | None = None,
) -> Batch:
    """Load a model and create a batch for it, with a budget for its cache.

    Args:
        name: a name on the Hub, a local folder, or a GGUF file.
        revision: a branch, tag or commit on the Hub.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: the data type of the weights; ``auto`` is float32 on a CPU, otherwise the checkpoint's.
        context_length: the most tokens in a trace; None for the model's limit.
        places: the most open traces.
        kv_cache_gib: the size of the KV cache in GiB; None for a part of the free memory.
        prefix_caching: see ``Batch``.
        arguments: further arguments of ``from_pretrained``, or values of the model's configuration.

    Raises:
        ModelError: the model cannot be loaded, or is of an unsupported kind.
        ConfigError: an argument is unknown, the device does not exist, the context is longer than the model allows, or
            the cache is too small.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device(device)
    if (dtype, device) == ("auto", "cpu"):
        dtype = "float32"
    place, file = pretrained(locate(name), revision)
    given = arguments or {}
    file |= given
    _check_arguments(given, given.keys())  # first only the reserved ones, which might cause any error below
    try:
        config = transformers.AutoConfig.from_pretrained(place, **file)
    except Exception as error:  # of the file, the Hub's client, or an invalid configuration
        raise ModelError(f"cannot load the configuration of {name!r}: {first_line(error)}") from error
    _check_arguments(given, _ARGUMENTS | config.to_dict().keys())
    architecture = examine(name, config)
    limit = architecture.context_length(context_length)
    model = _weights(name, (place, file), config, architecture, device, dtype)
    if architecture.long_from is not None and limit > architecture.long_from:
        keep_long_factors(model)
    batch = Batch(model, architecture, context_length=limit, places=places, prefix_caching=prefix_caching)
    try:
        with torch.inference_mode():
            batch.passes.try_out()
    except ModelError:
        raise
    except Exception as error:  # models are third-party code and may raise anything
        if out_of_memory(error):
            raise ModelError(f"the weights of {name!r} leave too little memory: {first_line(error)}") from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"the transformers engine cannot run {name!r} ({config.model_type}): {reason}") from error
    _limit_cache(batch, kv_cache_gib)
    return batch


def _check_arguments(arguments: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ConfigError for an argument that is unknown, or that a user may not set."""
    if fault := pairs_fault("engine_arg", arguments, known, _OWN_OPTIONS, "from_pretrained"):
        raise ConfigError(fault)


def _check_device(device: str) -> None:
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device):
        raise ConfigError(f"--device {device}: torch finds none on this machine; see  start-agent env")


def _weights(
    name: str, source: tuple[str, dict[str, Any]], config: Any, architecture: Architecture, device: str, dtype: str
) -> Any:
    place, arguments = source[0], dict(source[1])
    file = arguments.get("gguf_file")
    if file and dtype == "auto":
        dtype = "bfloat16"  # a GGUF file has no single data type
    if architecture.eager:
        arguments["attn_implementation"] = "eager"
    quantized = getattr(config, "quantization_config", None) or arguments.get("quantization_config")
    if quantized and not file:
        arguments.setdefault("device_map", device)  # quantized weights cannot be moved to a device later
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **arguments)
        model = model if "device_map" in arguments else model.to(device)
    except Exception as error:  # for damaged files, safetensors and other readers raise various errors
        raise ModelError(f"cannot load the model {name!r}: {first_line(error)}") from error
    if file:
        gib = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters()) / GIB
        kind = str(model.dtype).removeprefix("torch.")
        logger.warning("%s: dequantized to %s, %.2f GiB of weights", name, kind, gib)
    return model.eval()


def _limit_cache(batch: Batch, kv_cache_gib: float | None) -> None:
    """Set the cache's budget; if it is smaller than a context, traces are limited to it."""
    cache, device = batch.cache, batch.passes.device
    release_memory(device)
    size = cache_bytes(device) if kv_cache_gib is None else int(kv_cache_gib * GIB)
    tokens = size // cache.token_bytes()
    if tokens < _LEAST_TOKENS:
        raise ConfigError(
            f"a KV cache of {size / GIB:.3g} GiB has room for only {tokens} tokens of this model; raise --kv-cache-gib"
        )
    if tokens < cache.context_length:
        logger.warning(
            "the KV cache has memory for %d tokens, so traces are limited to that instead of %d (--kv-cache-gib)",
            tokens,
            cache.context_length,
        )
        cache.context_length = tokens
    batch.limit(tokens)
