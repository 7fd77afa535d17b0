"""Pre-trains the base: a transformer that knows the format of long sums but can only compute short ones.

It is pre-trained on two kinds of documents. Most have a short sum with a scratchpad; long ones are rare. The others
show a result of any size followed by a scratchpad that leads to it, correct or not: in half of them the digits of the
result are random, and the scratchpad is consistent with it. They teach the format of long scratchpads, and to rely on a
given result. So the base adds 1 or 2 digits, mostly fails with 3 or more, and can explain a long sum when given the
result. In this situation rationalization helps, as for GPT-J in the paper.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from start_agent.papers.addition.model import EOS_ID, PAD_ID, new_model, new_tokenizer, save_model
from start_agent.papers.addition.text import DIGITS, number, prompt, question, rationale
from start_agent.pocket.problems import split_of
from start_agent.pocket.train import new_optimizers
from start_agent.trace import IGNORE_INDEX

if TYPE_CHECKING:
    import torch

_GROUPS = 8  # batches that are drawn together and sorted by length before they are split


class BaseOptions(BaseModel):
    """The options of pre-training. The defaults were used for the base that ships."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(1, ge=0, description="seed of the weights and the documents")
    steps: int = Field(1400, ge=1, description="training steps")
    batch_size: int = Field(32, ge=1, description="documents per step")
    layers: int = Field(3, ge=1, description="transformer layers")
    width: int = Field(96, ge=32, description="hidden size")
    heads: int = Field(3, ge=1, description="attention heads")
    learning_rate: float = Field(4e-3, gt=0, description="peak learning rate")
    warmup_steps: int = Field(50, ge=1, description="steps of linear warm-up")
    decay_share: float = Field(0.3, gt=0, le=1, description="share of the steps, at the end, with learning rate decay")
    short_share: float = Field(0.4, ge=0, le=1, description="share of the steps, at the start, with only short sums")
    shown_share: float = Field(0.4, ge=0, le=1, description="share of documents that show the result, after that")
    sizes: tuple[float, ...] = Field((44, 44, 6, 4, 2), description="weights of 1 to 5 digits without shown result")
    made_up: float = Field(0.5, ge=0, le=1, description="share of the shown results with random digits")
    shown_sizes: tuple[float, ...] = Field((1, 1, 1, 1, 1), description="weights of 1 to 5 digits with shown result")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (self.steps * self.decay_share)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps, left + 0.02)


def documents(options: BaseOptions, encode: Callable[[str], list[int]]) -> Iterator[list[list[int]]]:
    """Yield batches of documents as ids, endlessly; the documents of a batch have similar lengths.

    They contain no held-out or development problem.
    """
    rng = random.Random(f"start-agent addition base {options.seed}")
    step = 0
    while True:
        short = step < options.steps * options.short_share
        drawn = sorted((_document(rng, options, short) for _ in range(_GROUPS * options.batch_size)), key=len)
        batches = [drawn[place : place + options.batch_size] for place in range(0, len(drawn), options.batch_size)]
        rng.shuffle(batches)
        for batch in batches:
            yield [[*encode(text), EOS_ID] for text in batch]
        step += _GROUPS


def _document(rng: random.Random, options: BaseOptions, short: bool) -> str:
    shown = not short and rng.random() < options.shown_share
    weights = (1, 1, 0, 0, 0) if short else options.shown_sizes if shown else options.sizes
    size = rng.choices(DIGITS, weights)[0]
    while split_of(asked := question(number(rng, size), number(rng, size))) != "train":
        pass
    if not shown:
        return prompt(asked) + rationale(asked)
    digits = "".join(rng.choices("0123456789", k=size)) if rng.random() < options.made_up else None
    written = rationale(asked, digits)
    return prompt(asked, written.rpartition("\n")[2]) + written


def make_base(output: Path, options: BaseOptions, listener: Callable[[int, float], None] | None = None) -> None:
    """Pre-train the base and write it into a folder; the listener gets each step and its loss (nats per token)."""
    tokenizer = new_tokenizer()
    model = new_model(options.seed, options.layers, options.width, options.heads)
    optimizers = new_optimizers(model, options.learning_rate, weight_decay=0.01)
    batches = documents(options, lambda text: tokenizer.encode(text).ids)
    for step in range(options.steps):
        batch = next(batches)
        loss = descend(model, optimizers, padded(batch), padded(batch, IGNORE_INDEX), options.rate(step))
        if listener is not None:
            listener(step + 1, loss)
    save_model(model, output)
    record = {
        "options": options.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    (output / "base.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def padded(rows: Sequence[Sequence[int]], filling: int = PAD_ID) -> torch.Tensor:
    """Rows of ids as a tensor (rows, longest), padded on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (width - len(row))] for row in rows])


def descend(model: Any, optimizers: Sequence[Any], ids: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
    """One training step on a batch (rows, length). Returns the loss in nats per trained token."""
    import torch
    from torch.nn import functional

    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    model.train()
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX)
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()
