"""Runs forward passes of a model over a slot cache: several tokens for a few rows, or one token for all."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from start_agent.engines.transformers.architecture import Architecture
from start_agent.engines.transformers.cache import SlotCache
from start_agent.errors import ModelError


class Passes:
    """A model and its cache.

    Args:
        model: a causal LM of transformers, in evaluation mode.
        architecture: its attention.
        context_length: the most tokens in a slot.
    """

    def __init__(self, model: Any, architecture: Architecture, context_length: int) -> None:
        self.model, self.device = model, model.device
        eager = model.config.get_text_config(decoder=True)._attn_implementation == "eager"
        self.cache = SlotCache(architecture, context_length, additive=model.dtype if eager else None)
        self._selects_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def try_out(self) -> None:
        """Run the model on rows of different lengths to learn the cache's sizes, then release the memory.

        Raises:
            ModelError: a layer stores nothing in the cache, so the model has its state elsewhere.
        """
        self.cache.reserve(2, 5)
        self.prefill([0, 1], [0, 0], [[0], [0, 0]])
        self.prefill([0, 1], [1, 2], [[0, 0], [0]])
        self.decode([3, 3], [0, 0])
        self.decode([3, 4], [0, 0])
        empty = sum(not layer.is_initialized for layer in self.cache.layers)
        self.cache.drop()
        if empty:
            kind = self.model.config.model_type
            raise ModelError(f"{empty} layers of a {kind} model store no keys and values: this engine cannot run it")

    def prefill(self, slots: list[int], starts: Sequence[int], chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feed each row i its chunk from position ``starts[i]`` on; returns the logits after it (rows, vocabulary)."""
        counts = [len(chunk) for chunk in chunks]
        self.cache.aim(slots, starts, counts, self.device)
        padded = [[*chunk, *[0] * (max(counts) - len(chunk))] for chunk in chunks]
        ends = sorted({count - 1 for count in counts})
        logits = self._forward(torch.tensor(padded, device=self.device), torch.tensor(ends, device=self.device))
        return logits[range(len(counts)), [ends.index(count - 1) for count in counts]]

    def decode(self, starts: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Feed one token to each of the first slots; returns the logits after it (rows, vocabulary)."""
        self.cache.aim(slice(0, len(tokens)), starts, [1] * len(tokens), self.device)
        logits = self._forward(torch.tensor([[token] for token in tokens], device=self.device), 1)
        return logits[:, 0]

    def _forward(self, ids: torch.Tensor, keep: torch.Tensor | int) -> torch.Tensor:
        """The logits (rows, kept positions, vocabulary) for ids (rows, width), after ``SlotCache.aim``."""
        positions = self.cache.positions[:, None] + torch.arange(ids.shape[1], device=self.device)
        output = self.model(
            input_ids=ids,
            attention_mask=self.cache.mask(ids.shape[1]),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **({"logits_to_keep": keep} if self._selects_logits else {}),
        )
        logits: torch.Tensor = output.logits
        return logits if self._selects_logits else logits[:, -1:] if isinstance(keep, int) else logits[:, keep]
