"""A causal LM of transformers, loaded for the engine: looked at before its weights are read, tried out after."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import torch
import transformers

from start_agent.engines.transformers.architecture import Architecture, examine, keep_long_factors
from start_agent.engines.transformers.batch import Batch
from start_agent.engines.transformers.memory import GIB, cache_bytes, give_back, out_of_memory
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
"""Those of ``PreTrainedModel.from_pretrained`` (transformers 5.19) that a user may set."""

_OWN_OPTIONS = {
    "dtype": "it has an option of its own, --dtype",
    "torch_dtype": "it has an option of its own, --dtype",
    "revision": "it has an option of its own, --revision",
    "attn_implementation": "the engine decides it: sdpa, or eager where the model needs that",
    "gguf_file": "name the file with --model",
    "token": "set HF_TOKEN in the environment, which no run records",
}

_LEAST_TOKENS = 64  # in the KV cache: less is no prompt


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
    """Load a model and make a batch for it, whose cache has a budget.

    Args:
        name: a name of the hub, a local folder, or a GGUF file.
        revision: a branch, tag or commit of the hub.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: of the weights; ``auto`` is float32 on a CPU, elsewhere the checkpoint's own.
        context_length: the most tokens in a trace; None for the model's own limit.
        places: traces that are open at once.
        kv_cache_gib: size of the KV cache; None for a part of the memory that is free.
        prefix_caching: of ``Batch``.
        arguments: further ones of ``from_pretrained``, or values of the model's configuration.

    Raises:
        ModelError: the model cannot be loaded, or is of a kind that cannot be run.
        ConfigError: an argument that is not known, the device is not there, the context longer than the model allows,
            or the cache too small.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _need(device)
    if (dtype, device) == ("auto", "cpu"):
        dtype = "float32"
    place, file = pretrained(locate(name), revision)
    given = arguments or {}
    file |= given
    _refuse(given, given.keys())  # those that are not the user's, which might fail in any way
    try:
        config = transformers.AutoConfig.from_pretrained(place, **file)
    except Exception as error:  # of the file, the hub's client, or a configuration that holds anything
        raise ModelError(f"cannot load the configuration of {name!r}: {first_line(error)}") from error
    _refuse(given, _ARGUMENTS | config.to_dict().keys())
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
    except Exception as error:  # models are programs of other people: whatever they raise is theirs
        if out_of_memory(error):
            raise ModelError(f"no memory is left beside the weights of {name!r}: {first_line(error)}") from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"the transformers engine cannot run {name!r} ({config.model_type}): {reason}") from error
    _bound(batch, kv_cache_gib)
    return batch


def _refuse(arguments: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ConfigError for an argument that is not known, or that is not the user's to set."""
    if fault := pairs_fault("engine_arg", arguments, known, _OWN_OPTIONS, "from_pretrained"):
        raise ConfigError(fault)


def _need(device: str) -> None:
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device):
        raise ConfigError(f"--device {device}: torch sees none on this machine; see  start-agent env")


def _weights(
    name: str, source: tuple[str, dict[str, Any]], config: Any, architecture: Architecture, device: str, dtype: str
) -> Any:
    place, arguments = source[0], dict(source[1])
    file = arguments.get("gguf_file")
    if file and dtype == "auto":
        dtype = "bfloat16"  # a GGUF file names no type of its own
    if architecture.eager:
        arguments["attn_implementation"] = "eager"
    quantized = getattr(config, "quantization_config", None) or arguments.get("quantization_config")
    if quantized and not file:
        arguments.setdefault("device_map", device)  # quantized weights cannot be moved later
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **arguments)
        model = model if "device_map" in arguments else model.to(device)
    except Exception as error:  # damaged files: safetensors has an error of its own, readers raise whatever they meet
        raise ModelError(f"cannot load the model {name!r}: {first_line(error)}") from error
    if file:
        gib = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters()) / GIB
        kind = str(model.dtype).removeprefix("torch.")
        logger.warning("%s: dequantized to %s, %.2f GiB of weights", name, kind, gib)
    return model.eval()


def _bound(batch: Batch, kv_cache_gib: float | None) -> None:
    """Give the cache its budget; where that holds less than a context, traces are as long as it allows."""
    cache, device = batch.cache, batch.passes.device
    give_back(device)
    size = cache_bytes(device) if kv_cache_gib is None else int(kv_cache_gib * GIB)
    tokens = size // cache.token_bytes()
    if tokens < _LEAST_TOKENS:
        raise ConfigError(f"a KV cache of {size / GIB:.3g} GiB holds {tokens} tokens of this model: --kv-cache-gib")
    if tokens < cache.context_length:
        logger.warning(
            "the KV cache has memory for %d tokens: traces end there, not at %d (--kv-cache-gib)",
            tokens,
            cache.context_length,
        )
        cache.context_length = tokens
    batch.limit(tokens)
