"""The pocket reasoner in other architectures: the same function of its tokens, by other layers of transformers.

What an architecture adds is set so that it changes nothing (biases of zero, multipliers of one, further query heads
whose output is dropped). So these models write what the pocket reasoner writes: connectives, code, answers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from start_agent.pocket import weights_path

Weights = dict[str, torch.Tensor]

_CHANGES: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 6},  # two query heads for each key head
    "mistral": {"sliding_window": 4096},
    "qwen2": {"use_sliding_window": False},
    "phi3": {"sliding_window": None, "original_max_position_embeddings": 1024},
    "granite": {
        "attention_multiplier": 0.125,  # 1 / sqrt(64), what others divide by
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
    },
    "smollm3": {"no_rope_layers": [1] * 5, "use_sliding_window": False},
}
_CLASSES = {"phi3": "Phi3", "qwen2": "Qwen2", "smollm3": "SmolLM3"}

ARCHITECTURES = tuple(_CHANGES)
"""Model types of transformers."""


def pocket_as(architecture: str, folder: Path) -> Path:
    """Write the pocket reasoner as a model of this type, in float32."""
    source = weights_path()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "start_agent.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    config = json.loads((source / "config.json").read_text()) | _CHANGES[architecture]
    name = _CLASSES.get(architecture, architecture.capitalize())
    config |= {"model_type": architecture, "architectures": [f"{name}ForCausalLM"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {key: value.float() for key, value in load_file(source / "model.safetensors").items()}
    save_file(_written(architecture, weights, config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _written(architecture: str, weights: Weights, config: dict[str, Any]) -> Weights:
    size, heads = config["head_dim"], config["num_key_value_heads"]
    found: Weights = {}
    for key, value in weights.items():
        layer = key.rpartition("self_attn.")[0]
        if architecture == "llama" and key.endswith("q_proj.weight"):
            each = value.view(heads, 1, size, -1)
            found[key] = torch.cat([each, torch.zeros_like(each)], dim=1).reshape(2 * heads * size, -1).contiguous()
        elif architecture == "llama" and key.endswith("o_proj.weight"):
            each = value.view(-1, heads, 1, size)
            found[key] = torch.cat([each, torch.zeros_like(each)], dim=2).reshape(-1, 2 * heads * size).contiguous()
        elif architecture == "phi3" and key.endswith("q_proj.weight"):
            parts = [weights[f"{layer}self_attn.{part}_proj.weight"] for part in "qkv"]
            found[f"{layer}self_attn.qkv_proj.weight"] = torch.cat(parts)
        elif architecture == "phi3" and key.endswith("gate_proj.weight"):
            found[key.replace("gate_proj", "gate_up_proj")] = torch.cat([value, weights[key.replace("gate", "up")]])
        elif architecture == "phi3" and key.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            continue
        else:
            found[key] = value
        if architecture == "qwen2" and key.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            found[key.replace("weight", "bias")] = torch.zeros(len(value))
    return found
