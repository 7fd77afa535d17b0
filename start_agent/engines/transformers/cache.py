"""A KV cache of slots: every open trace has a slot, and keeps it while its tools run.

Keys and values of a layer are in one tensor (slots, heads, capacity, head size). Decoding traces occupy the first
slots, so that a decoding step reads a view of the tensor without copying; a trace that pauses swaps slots with the last
of them. The tensors double in size when another slot or position is needed, within the budget. Layers with a sliding
window keep all positions, so that tokens can be dropped again; their mask hides positions before the window.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from start_agent.engines.transformers.architecture import FULL, SLIDING, Architecture

_FIRST_CAPACITY = 256
_SPARE = 4  # slots of ended traces may make the cache grow to at most a quarter of the budget

Mask = torch.Tensor | dict[str, torch.Tensor] | None


class SlotCache(Cache):  # type: ignore[misc]  # transformers has no types
    """The model's ``past_key_values``. ``aim`` chooses the slots for the next forward pass.

    Args:
        architecture: the layers with keys and values, and their sliding window.
        context_length: the most tokens in a slot.
        additive: the data type of masks that are added to attention scores (eager attention); None for boolean masks
            (SDPA).

    Attributes:
        budget: the most positions (slots times capacity) in the tensors; None without a limit.
    """

    def __init__(self, architecture: Architecture, context_length: int, *, additive: torch.dtype | None = None) -> None:
        super().__init__(layers=[_SlotLayer(self) for _ in architecture.kinds])
        self.kinds, self.window = set(architecture.kinds), architecture.window
        self.context_length, self.additive = context_length, additive
        self.budget: int | None = None
        self.slots = 0
        self.capacity = 0
        self.rows: slice | list[int] = slice(0, 0)
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.length = 0
        self.positions = torch.empty(0, dtype=torch.long)
        self.places: tuple[torch.Tensor, slice, torch.Tensor] = (self.positions, slice(None), self.positions)

    def aim(self, rows: slice | list[int], starts: Sequence[int], counts: Sequence[int], device: Any) -> None:
        """Prepare the next forward pass, with ``counts[i]`` tokens for row i at positions from ``starts[i]`` on.

        For a slice of rows it is one token each (decoding). Otherwise shorter rows are padded on the right; keys and
        values of padding are not kept.
        """
        self.rows, self.starts, self.counts = rows, list(starts), list(counts)
        self.length = max(start + count for start, count in zip(starts, counts, strict=True))
        self.positions = torch.tensor(self.starts, device=device)
        self.places = torch.arange(len(starts), device=device), slice(None), self.positions

    def fits(self, slots: int, length: int) -> bool:
        """Whether the budget allows this many slots of this many tokens."""
        return self.budget is None or slots * length <= self.budget

    def small(self, slots: int, length: int) -> bool:
        """Whether tensors for this many slots and tokens are a small part of the budget, so that slots may be idle."""
        return slots <= self._most(self._capacity_for(slots, length), _SPARE)

    def grows(self, slots: int, length: int) -> bool:
        """Whether this many slots of this many tokens need more memory than is allocated."""
        return slots > self.slots or length > self.capacity

    def reserve(self, slots: int, length: int) -> None:
        """Make room for this many slots of this many tokens, which must fit; further slots and positions may be
        dropped.

        Raises torch's error when memory runs out; then empty the cache with ``drop``.
        """
        if not self.grows(slots, length):
            return
        longer = self._capacity_for(slots, length)
        if longer > self.capacity and not self.small(self.slots, longer):
            self.slots = min(self.slots, slots)  # unused slots would only take more memory
        self.capacity = longer
        if slots > self.slots or not self.fits(self.slots, self.capacity):
            share = _SPARE if self.small(slots, self.capacity) else 1
            self.slots = max(slots, min(2 * self.slots, self._most(self.capacity, share)))
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys, layer.values = self.resized(layer.keys), self.resized(layer.values)

    def drop(self) -> None:
        """Release all memory; slots and capacity become 0."""
        self.slots = self.capacity = 0
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys, layer.values = self.resized(layer.keys), self.resized(layer.values)

    def token_bytes(self) -> int:
        """The bytes of one position in all layers. Known after the model has run once."""
        tensors = [tensor for layer in self.layers for tensor in (layer.keys, layer.values)]
        return sum(tensor.shape[1] * tensor.shape[3] * tensor.element_size() for tensor in tensors)

    def resized(self, states: torch.Tensor) -> torch.Tensor:
        """Copy ``states`` (slots or rows, heads, …, head size) to the start of a new tensor for all slots."""
        slots, length = min(self.slots, states.shape[0]), min(self.capacity, states.shape[2])
        tensor = states.new_zeros(self.slots, states.shape[1], self.capacity, states.shape[3])
        tensor[:slots, :, :length] = states[:slots, :, :length]
        return tensor

    def swap(self, one: int, other: int, of_one: int, of_other: int) -> None:
        """Swap the first tokens of two slots, ``of_one`` and ``of_other`` of them."""
        for layer in self.layers:
            if layer.is_initialized:
                for tensor in (layer.keys, layer.values):
                    kept = tensor[one, :, :of_one].clone()
                    tensor[one, :, :of_other] = tensor[other, :, :of_other]
                    tensor[other, :, :of_one] = kept

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one slot to another."""
        for layer in self.layers:
            if layer.is_initialized:
                for tensor in (layer.keys, layer.values):
                    tensor[target, :, :length] = tensor[source, :, :length]

    def mask(self, queries: int) -> Mask:
        """The attention mask (rows, 1, queries, length), one per kind of layer if there are several.

        Each token attends to itself and all earlier tokens in its slot; in a sliding layer, to those in the window.
        None if all rows start at the same position: the model can then derive the mask from the cache's lengths, and
        attention without a mask is faster and does not repeat the heads of grouped queries.
        """
        decodes_alike = queries == 1 and min(self.starts) + 1 == self.length
        if decodes_alike or max(self.starts) == 0:
            return None
        here = self.positions[:, None, None, None] + torch.arange(queries, device=self.positions.device)[:, None]
        places = torch.arange(self.length, device=self.positions.device)
        full = places <= here
        masks = {FULL: self._typed(full)}
        if self.window is not None:
            inside = self.length <= self.window
            masks[SLIDING] = masks[FULL] if inside else self._typed(full & (places > here - self.window))
        return masks if len(self.kinds) > 1 else masks[next(iter(self.kinds))]

    def _typed(self, visible: torch.Tensor) -> torch.Tensor:
        if self.additive is None:
            return visible
        hidden = torch.finfo(self.additive).min
        return torch.zeros(visible.shape, dtype=self.additive, device=visible.device).masked_fill_(~visible, hidden)

    def _capacity_for(self, slots: int, length: int) -> int:
        """The positions per slot after making room for this many slots of this many tokens."""
        if length <= self.capacity and self.fits(slots, self.capacity):
            return self.capacity
        wanted = max(length, 2 * self.capacity, _FIRST_CAPACITY)
        return min(wanted, self.context_length, self._most(slots))

    def _most(self, times: int, share: int = 1) -> int:
        """How many times this number of positions fits the budget, or the budget divided by ``share``."""
        return sys.maxsize if self.budget is None else self.budget // share // max(times, 1)


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """One layer's keys and values."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the tensors, once the sizes of heads are known."""
        self.keys, self.values = self._cache.resized(key_states[:0]), self._cache.resized(value_states[:0])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values (rows, heads, tokens, head size), and return all of the rows."""
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
        """The length of what ``update`` returns, and its offset."""
        return self._cache.length, 0

    def get_seq_length(self) -> int:
        """The number of tokens in the longest row before the pass."""
        return max(self._cache.starts, default=0)

    def get_max_length(self) -> int:
        """The most tokens in a slot."""
        return self._cache.context_length
