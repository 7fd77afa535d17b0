"""A KV cache of slots: every open trace has one, and keeps it while its tools run.

Keys and values of a layer lie in one tensor (slots, heads, capacity, head size). The traces that are decoding
occupy the first slots, so that a decoding step reads a view of the tensor and copies nothing; a trace that pauses
trades places with the last of them. The tensors double when a slot or a position more is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_FIRST_CAPACITY = 256


class SlotCache(Cache):  # type: ignore[misc]  # transformers has no types
    """What the model is given as ``past_key_values``. ``aim`` says which slots the next forward pass is for."""

    def __init__(self, layers: int, context_length: int) -> None:
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])
        self.context_length = context_length
        self.slots = 0
        self.capacity = 0
        self.rows: slice | list[int] = slice(0, 0)
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.length = 0
        self.positions = torch.empty(0, dtype=torch.long)
        self.places: tuple[torch.Tensor, slice, torch.Tensor] = (self.positions, slice(None), self.positions)

    def aim(self, rows: slice | list[int], starts: Sequence[int], counts: Sequence[int], device: Any) -> None:
        """The next forward pass brings ``counts[i]`` tokens for row i, to lie from ``starts[i]`` on.

        A slice of rows brings one token each (decoding); otherwise shorter rows are padded on the right, and what
        the padding computes is not kept.
        """
        self.rows, self.starts, self.counts = rows, list(starts), list(counts)
        self.length = max(start + count for start, count in zip(starts, counts, strict=True))
        self.positions = torch.tensor(self.starts, device=device)
        self.places = torch.arange(len(starts), device=device), slice(None), self.positions

    def reserve(self, slots: int, length: int) -> None:
        """Make room for this many slots of this many tokens."""
        if slots <= self.slots and length <= self.capacity:
            return
        if slots > self.slots:
            self.slots = max(slots, 2 * self.slots)
        if length > self.capacity:
            self.capacity = min(max(length, 2 * self.capacity, _FIRST_CAPACITY), self.context_length)
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys, layer.values = self.grown(layer.keys), self.grown(layer.values)

    def grown(self, states: torch.Tensor) -> torch.Tensor:
        """Room for all slots, in the type of ``states`` (slots or rows, heads, …, head size), which comes first."""
        tensor = states.new_zeros(self.slots, states.shape[1], self.capacity, states.shape[3])
        tensor[: states.shape[0], :, : states.shape[2]] = states[:, :, : self.capacity]
        return tensor

    def swap(self, one: int, other: int, length: int) -> None:
        """Two slots trade places, of which the first ``length`` tokens matter."""
        for layer in self.layers:
            if layer.is_initialized:
                for tensor in (layer.keys, layer.values):
                    kept = tensor[one, :, :length].clone()
                    tensor[one, :, :length] = tensor[other, :, :length]
                    tensor[other, :, :length] = kept

    def mask(self, queries: int) -> torch.Tensor | None:
        """Who may look at what, (rows, 1, queries, length): each token at itself and all before it in its slot.

        None where each query looks at all that is there, or at all up to itself: without a mask, attention is
        faster and need not repeat the heads of grouped queries.
        """
        decodes_alike = queries == 1 and min(self.starts) + 1 == self.length
        if decodes_alike or max(self.starts) == 0:
            return None
        steps = torch.arange(queries, device=self.positions.device)
        places = torch.arange(self.length, device=self.positions.device)
        return places <= (self.positions[:, None, None, None] + steps[:, None])


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer's keys and values."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate, once the sizes of heads are known."""
        self.keys, self.values = self._cache.grown(key_states[:0]), self._cache.grown(value_states[:0])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values, (rows, heads, tokens, head size), and give all that the rows have."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._stored(self.keys, key_states), self._stored(self.values, value_states)

    def _stored(self, tensor: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        cache = self._cache
        if isinstance(cache.rows, slice):
            tensor[cache.places] = states[:, :, 0]  # decoding: the first slots, one token each
        else:
            for index, (row, start, count) in enumerate(zip(cache.rows, cache.starts, cache.counts, strict=True)):
                tensor[row, :, start : start + count] = states[index, :, :count]
        return tensor[cache.rows, :, : cache.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The length of what ``update`` gives, and its offset."""
        return self._cache.length, 0

    def get_seq_length(self) -> int:
        """How many tokens the longest row has before the pass."""
        return max(self._cache.starts, default=0)

    def get_max_length(self) -> int:
        """The most tokens that a slot may hold."""
        return self._cache.context_length
