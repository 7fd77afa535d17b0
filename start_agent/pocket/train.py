"""Trains the pocket reasoner: a simple loop over packed batches, bit-exactly resumable on the same machine."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from start_agent.fields import deciding, with_new_names
from start_agent.files import atomic_write
from start_agent.pocket.batches import Encode, batch
from start_agent.pocket.corpus import mix_at
from start_agent.pocket.options import BuildOptions
from start_agent.trace import IGNORE_INDEX

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

_log = logging.getLogger(__name__)


def new_model(options: BuildOptions, vocabulary: int) -> LlamaForCausalLM:
    """A Llama with random weights from the seed, tied embeddings, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=options.width,
        intermediate_size=options.feed_forward,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        max_position_embeddings=options.context,
        rope_parameters={"rope_type": "default", "rope_theta": options.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        use_cache=False,
        attn_implementation="eager",  # on a CPU, faster than the fused kernel for short rows
    )
    return LlamaForCausalLM(config)


def _decay_start(steps: int, options: BuildOptions) -> int:
    """The step at which the learning rate decay begins, in a run of `steps` steps."""
    return steps - max(1, round(steps * options.decay_share))


def rate_at(step: int, options: BuildOptions) -> float:
    """The learning rate of a step (counted from 0): linear warm-up, constant, then linear decay to `final_rate`.

    Constant until the last `decay_share` of the steps, so that runs of different lengths have the same beginning.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    start = _decay_start(options.steps, options)
    left = min(1.0, (options.steps - step) / (options.steps - start))
    return options.learning_rate * (options.final_rate + (1 - options.final_rate) * left)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    import torch

    with atomic_write(path) as file:
        torch.save(state, file)


def _load_checkpoint(path: Path, options: BuildOptions) -> dict[str, Any] | None:
    import torch

    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state["options"] = with_new_names(BuildOptions, state["options"], warn=False)
    now = deciding(options)
    changed = sorted(name for name in now if state["options"].get(name, now[name]) != now[name])
    if changed == ["steps"] and int(state["step"]) <= min(
        _decay_start(now["steps"], options), _decay_start(state["options"]["steps"], options)
    ):
        changed = []  # up to this step, runs of both lengths have the same learning rates
    if changed:
        raise ValueError(f"the checkpoint {path} was made with other settings: {', '.join(changed)}")
    return state


def new_optimizers(model: LlamaForCausalLM, rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms.

    Muon (Jordan et al. 2024) orthogonalizes each update; it is scaled to work with AdamW's rate (Liu et al. 2025).
    """
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw", ns_steps=5),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True),
    ]


class _Progress:
    """Writes speed and remaining time to a stream, and a JSON line every `logging_steps` steps to the log file."""

    def __init__(self, log: TextIO, stream: TextIO, options: BuildOptions, first: int, loss: float) -> None:
        self._log, self._stream, self._options, self._first = log, stream, options, first
        self.mean_loss = loss  # over the steps of the last log line
        self._begin = self._last = time.monotonic()
        self._loss, self._steps, self._tokens = 0.0, 0, 0

    def step(self, step: int, loss: float, tokens: int, norm: float) -> None:
        """Record a finished step (counted from 1)."""
        self._loss, self._steps, self._tokens = self._loss + loss, self._steps + 1, self._tokens + tokens
        if step % self._options.logging_steps and step != self._options.steps:
            return
        now = time.monotonic()
        speed = self._tokens / (now - self._last)
        left = (now - self._begin) / (step - self._first) * (self._options.steps - step)
        record = {
            "step": step,
            "loss": round(self._loss / self._steps, 5),
            "gradient_norm": round(norm, 4),
            "learning_rate": rate_at(step - 1, self._options),
            "tokens_per_second": round(speed),
            "seconds": round(now - self._begin, 1),
        }
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
        self._stream.write(
            f"step {step}/{self._options.steps}  loss {record['loss']:.4f}  {speed:,.0f} tokens/s  {left:,.0f} s left\n"
        )
        self._stream.flush()
        self.mean_loss = self._loss / self._steps
        self._loss, self._steps, self._tokens, self._last = 0.0, 0, 0, now


def train(
    options: BuildOptions, encode: Encode, vocabulary: int, stop_at: int | None = None, stream: TextIO = sys.stderr
) -> tuple[LlamaForCausalLM, float]:
    """Train from the last checkpoint, or from random weights, to the end (or to step `stop_at`).

    Returns the model, on the CPU in float32, and the mean loss (nats per token) of the last log line.
    Raises `ValueError` if the work folder has a checkpoint with other settings.
    """
    import torch
    from torch.nn import functional

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options.work_folder.mkdir(parents=True, exist_ok=True)
    path = options.work_folder / "checkpoint.pt"
    model = new_model(options, vocabulary).to(device)
    optimizers = new_optimizers(model, options.learning_rate, options.weight_decay)
    start, last_loss = 0, 0.0
    if (state := _load_checkpoint(path, options)) is not None:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, last_loss = int(state["step"]), float(state["loss"])
        _log.info("resumed from step %d", start)
    forward: Any = torch.compile(model) if options.compile else model
    model.train()
    end = options.steps if stop_at is None else min(stop_at, options.steps)
    with (options.work_folder / "log.jsonl").open("a") as log:
        progress = _Progress(log, stream, options, start, last_loss)
        for step in range(start, end):
            now = batch(encode, options.seed, step, options.rows, options.row_length, mix_at(step))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate_at(step, options)
            with torch.autocast(device, dtype=torch.bfloat16):
                unseen = torch.finfo(torch.bfloat16).min
                mask = torch.zeros(now.mask.shape, dtype=torch.bfloat16).masked_fill_(~now.mask, unseen)
                logits = forward(input_ids=now.ids.to(device), attention_mask=mask.to(device)).logits
                loss = functional.cross_entropy(
                    logits.flatten(0, 1).float(), now.targets.to(device).flatten(), ignore_index=IGNORE_INDEX
                )
            model.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
            progress.step(step + 1, loss.item(), now.ids.numel(), float(norm))
            if (step + 1) % options.save_steps == 0 or step + 1 == end:
                save_checkpoint(
                    path,
                    {
                        "model": model.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "step": step + 1,
                        "loss": progress.mean_loss,
                        "options": deciding(options),
                    },
                )
    return model.to("cpu"), progress.mean_loss
