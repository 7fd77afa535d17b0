"""The order of rows: a function of only the seed and the epoch, so that a resumed run uses the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from start_agent.seeds import derive_seed

_STEPS_SORTED = 32  # steps whose rows are sorted together: little padding, but still well shuffled


class EpochSampler(torch.utils.data.Sampler[int]):
    """A sampler that shuffles all rows again in each epoch.

    Args:
        lengths: tokens of each row.
        seed: determines the order in all epochs.
        step: sequences per optimizer step.
        grouped: put rows of similar length into a step, longest first; the steps themselves are shuffled.
    """

    def __init__(self, lengths: Sequence[int], seed: int, step: int, *, grouped: bool) -> None:
        self._lengths, self._seed, self._step, self._grouped = list(lengths), seed, step, grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
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
        # An incomplete step must come last, or all later groups would be split over two steps.
        shuffled.sort(key=lambda rows: len(rows) < self._step)
        return iter([row for rows in shuffled for row in rows])
