"""In which order rows are seen: a function of the seed and the epoch alone, so that a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from start_agent.seeds import derive_seed

_STEPS_SORTED = 32  # steps' worth of rows that are sorted together: little padding, still much mixing


class EpochSampler(torch.utils.data.Sampler[int]):
    """A sampler: all rows, shuffled anew in each epoch.

    Args:
        lengths: tokens of each row.
        seed: decides all epochs.
        step: sequences in an optimizer step.
        grouped: put rows of like length into a step, longest first within it; the steps themselves are shuffled.
    """

    def __init__(self, lengths: Sequence[int], seed: int, step: int, *, grouped: bool) -> None:
        self._lengths, self._seed, self._step, self._grouped = list(lengths), seed, step, grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """What the trainer calls before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, f"order of epoch {self._epoch}"))
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        if not self._grouped:
            return iter(order)
        steps: list[list[int]] = []
        for begin in range(0, len(order), self._step * _STEPS_SORTED):
            chunk = sorted(order[begin : begin + self._step * _STEPS_SORTED], key=lambda i: -self._lengths[i])
            steps += [chunk[at : at + self._step] for at in range(0, len(chunk), self._step)]
        shuffled = [steps[i] for i in torch.randperm(len(steps), generator=generator).tolist()]
        # Only a whole step may stand before another, else all that follow would straddle two.
        shuffled.sort(key=lambda rows: len(rows) < self._step)
        return iter([row for rows in shuffled for row in rows])
