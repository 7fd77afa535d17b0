"""A tiny model of the Qwen2 architecture that trains quickly, with the pocket reasoner's tokenizer."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from start_agent.pocket import weights_path

VOCABULARY, EOS, PAD = 1024, 2, 0


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """Random weights from the seed, in a folder that ``from_pretrained`` loads."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(weights_path() / name, folder / name)
    return folder


def rows(count: int, seed: int = 0, longest: int = 40) -> list[dict[str, Any]]:
    """Rows of random ids that end with EOS, their first third masked and, in half of them, a part in the middle."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        ids = [chance.randrange(3, VOCABULARY) for _ in range(chance.randint(9, longest - 1))] + [EOS]
        labels = [-100] * (len(ids) // 3) + ids[len(ids) // 3 :]
        if number % 2:
            middle = len(ids) // 2
            labels[middle : middle + 2] = [-100, -100]
        masks = [int(label != -100) for label in labels]
        made.append({"key": f"row {number}", "input_ids": ids, "labels": labels, "assistant_masks": masks})
    return made
