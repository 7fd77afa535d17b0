"""Reads the kinds of attention from a model's configuration, before its weights are loaded.

Supported are layers of full attention and of one sliding window, also mixed. Models with another state than keys and
values (Mamba, linear attention), or other attention patterns (chunks, indexes), are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from start_agent.errors import ConfigError, ModelError, first_line

FULL, SLIDING = "full_attention", "sliding_attention"
Kind = Literal["full_attention", "sliding_attention"]

# Names of the longest context in configurations; most have max_position_embeddings, some as an alias.
_LIMITS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The attention of a model.

    Attributes:
        kinds: the kind of each layer with keys and values.
        window: the tokens that a sliding layer attends to, including the current one; None without such layers.
        limit: the longest context, in tokens; None if the configuration has none.
        extended: the longest context with stretched positions (YaRN), in tokens; at least ``limit``.
        long_from: a longer context needs the long factors of LongRoPE; None for other models.
        eager: whether it needs attention in plain torch, because of features that SDPA lacks (soft caps).
    """

    kinds: tuple[Kind, ...]
    window: int | None
    limit: int | None
    extended: int | None
    long_from: int | None
    eager: bool

    def context_length(self, wanted: int | None) -> int:
        """The most tokens in a trace; ``wanted`` is the user's choice. Raises ConfigError."""
        if wanted is None:
            if self.limit is None:
                raise ConfigError("the model's configuration has no longest context; use --context-length")
            return self.limit
        if self.extended is not None and wanted > self.extended:
            stretched = "" if self.extended == self.limit else " with its rope scaling"
            raise ConfigError(
                f"--context-length {wanted}: the model's configuration allows {self.extended}{stretched}; "
                "a longer context needs rope_parameters (YaRN) in its config.json"
            )
        return wanted


def examine(name: str, config: Any) -> Architecture:
    """Read a configuration of transformers.

    Raises:
        ModelError: it is not of a causal language model, or the engine cannot run the model.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{name!r} ({config.model_type}) is not a causal language model")
    try:
        text = config.get_text_config(decoder=True)
        types, arguments = get_layer_types_and_kwargs(text)
        windows = {values["sliding_window"] for values in arguments if "sliding_window" in values}
        stretched, long_from = _stretched(text)
    except Exception as error:  # a configuration may contain anything, and transformers checks little of it
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"the configuration of {name!r} ({config.model_type}) cannot be read: {reason}") from error
    other = sorted(set(types) - {FULL, SLIDING})
    if other or getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_is_stateful", False):
        what = f"layers of the kinds {', '.join(other)}" if other else "a recurrent state"
        raise ModelError(
            f"{name!r} ({config.model_type}) has {what}, but the transformers engine supports only full and sliding "
            "attention; try --engine vllm, or --engine http with a server that supports it"
        )
    if len(windows) > 1:
        raise ModelError(f"{name!r} ({config.model_type}) has sliding windows of several lengths: {sorted(windows)}")
    limit = next((int(value) for key in _LIMITS if isinstance(value := getattr(text, key, None), int)), None)
    return Architecture(
        tuple(types),
        next(iter(windows), None),
        limit,
        None if limit is None else max(limit, stretched),
        long_from,
        eager=getattr(text, "attn_logit_softcapping", None) is not None,
    )


def _stretched(text: Any) -> tuple[int, int | None]:
    """The longest context with YaRN (0 without it), and the length from which LongRoPE needs its long factors."""
    found, long_from = 0, None
    for rope in _ropes(text):
        original = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") == "yarn" and original:
            found = max(found, int(original * rope.get("factor", 1)))
        if rope.get("rope_type") == "longrope":
            long_from = int(original or text.max_position_embeddings)
    return found, long_from


def _ropes(text: Any) -> list[dict[str, Any]]:
    """The parameters of rotary positions: one set for all layers, or one for each kind of layer."""
    parameters = getattr(text, "rope_parameters", None) or {}
    return [parameters] if "rope_type" in parameters else [part for part in parameters.values() if part]


def keep_long_factors(model: torch.nn.Module) -> None:
    """Make LongRoPE use its long factors at every length.

    transformers uses the short factors while the longest row of a pass is short. Cached tokens would then have other
    factors than later ones, and a row's result would depend on the rows in its batch.
    """
    for module in model.modules():
        if getattr(module, "rope_type", None) == "longrope":
            config: Any = module.config
            original = config.rope_parameters["original_max_position_embeddings"]
            compute = ROPE_INIT_FUNCTIONS["longrope"]
            factors, _ = compute(config, module.inv_freq.device, seq_len=original + 1)
            module.inv_freq = module.original_inv_freq = factors
