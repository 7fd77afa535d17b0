"""Builds the pocket reasoner: tokenizer, training, and a model folder for `AutoModelForCausalLM.from_pretrained`."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TextIO

from start_agent.models import PROMPTING
from start_agent.pocket.batches import encoder
from start_agent.pocket.corpus import SCHEDULE, texts
from start_agent.pocket.options import BuildOptions
from start_agent.pocket.tokenizer import save_tokenizer, train_tokenizer
from start_agent.pocket.train import train

_SAMPLE = 500  # texts of each mix whose sha256 is stored in build.json, to identify the corpus


def corpus_digest(seed: int) -> str:
    """The sha256 of the first texts of each mix of the corpus of a seed; it changes when the generator changes."""
    digest = hashlib.sha256()
    for _, mix in SCHEDULE:
        for pieces in islice(texts(seed, mix), _SAMPLE):
            digest.update("\x00".join(pieces).encode())
    return digest.hexdigest()


def training_seconds(log: Path) -> float:
    """The total wall time of all runs in a log, including interrupted ones; each run counts from 0."""
    total = last = 0.0
    for line in log.read_text().splitlines():
        now = float(json.loads(line)["seconds"])
        total += last if now < last else 0.0
        last = now
    return total + last


def build(options: BuildOptions, stream: TextIO = sys.stderr) -> Path:
    """Train the pocket reasoner and write it to `options.output_dir`; an interrupted run is resumed.

    Progress is written to `stream`. Returns the output folder, with `config.json`, `model.safetensors` (bfloat16),
    `generation_config.json`, the tokenizer's files and `build.json`.
    """
    import torch
    from transformers import GenerationConfig

    options.output_dir.mkdir(parents=True, exist_ok=True)
    sample = (piece for pieces in islice(texts(options.seed), options.tokenizer_texts) for piece in pieces)
    tokenizer = train_tokenizer(sample, options.vocabulary)
    model, loss = train(options, encoder(tokenizer), tokenizer.get_vocab_size(), stream=stream)
    # Save the configuration for inference: default attention implementation, with cache.
    model.config.use_cache = True
    model.config._attn_implementation = None
    model.generation_config = GenerationConfig(bos_token_id=None, eos_token_id=[2, 0], pad_token_id=0)
    model.to(torch.bfloat16).save_pretrained(options.output_dir)
    save_tokenizer(tokenizer, options.output_dir, options.context)
    # It was trained only on questions without instructions.
    (options.output_dir / PROMPTING).write_text(json.dumps({"instruction": ""}) + "\n")
    record = {
        "options": json.loads(options.model_dump_json(exclude={"output_dir", "work"})),
        "seed": options.seed,
        "final_loss": round(loss, 5),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(training_seconds(options.work_folder / "log.jsonl"), 1),
        "corpus_sha256": corpus_digest(options.seed),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")},
        "python": platform.python_version(),
    }
    (options.output_dir / "build.json").write_text(json.dumps(record, indent=2) + "\n")
    return options.output_dir
