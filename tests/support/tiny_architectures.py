"""Tiny models of common architectures: random weights, the pocket's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from start_agent.pocket import weights_path

VOCABULARY, EOS, WINDOW, CONTEXT = 1024, 2, 24, 320

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # wide, so that what a model says depends on all that it reads
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen2 with some layers sliding": (
        "Qwen2ForCausalLM",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3ForCausalLM", {}),
    "qwen3 moe": ("Qwen3MoeForCausalLM", {**_EXPERTS, "moe_intermediate_size": 16}),
    "mistral": ("MistralForCausalLM", {"sliding_window": WINDOW}),
    "phi3": ("Phi3ForCausalLM", {"sliding_window": WINDOW}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {"sliding_window": WINDOW, "attn_logit_softcapping": 5.0, "layer_types": _ALTERNATING},
    ),
    "gemma3": ("Gemma3ForCausalLM", {"sliding_window": WINDOW, "layer_types": _ALTERNATING}),
    "gpt-oss": ("GptOssForCausalLM", {**_EXPERTS, "sliding_window": WINDOW, "layer_types": _ALTERNATING}),
    "olmo3": ("Olmo3ForCausalLM", {"sliding_window": WINDOW, "layer_types": _ALTERNATING}),
    "smollm3": ("SmolLM3ForCausalLM", {"no_rope_layers": [1, 1, 1, 0]}),
    "glm4": ("Glm4ForCausalLM", {}),
    "granite": ("GraniteForCausalLM", {}),
    "deepseek v3": (
        "DeepseekV3ForCausalLM",
        {
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 16,
            "q_lora_rank": None,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "num_key_value_heads": 4,
        },
    ),
}
"""By name: the class in transformers, and what its configuration has besides the sizes."""


def architecture(folder: Path, family: str, seed: int = 0, **more: Any) -> Path:
    """A model of the family in a folder that ``from_pretrained`` loads, its weights from the seed."""
    import torch
    import transformers

    name, special = FAMILIES[family]
    cls = getattr(transformers, name)
    torch.manual_seed(seed)
    cls(cls.config_class(**{**_SIZES, **special, **more})).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(weights_path() / file, folder / file)
    return folder
