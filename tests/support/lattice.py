"""All tokenizations of some bytes in a vocabulary."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property

from tests.support.vocabularies import Vocabulary

RANDOM_PATHS = 60
"""Beside those that take each piece once, where there are too many to take all."""


class Lattice:
    """The pieces of a vocabulary that fit into ``text[begin:end]``, and the paths that they form."""

    def __init__(self, vocabulary: Vocabulary, text: bytes, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self.edges: dict[int, list[tuple[int, int]]] = {  # from: (to, id)
            start: [
                (stop, token_id)
                for stop in range(start + 1, min(end, start + vocabulary.longest) + 1)
                for token_id in vocabulary.spellings.get(text[start:stop], ())
            ]
            for start in range(begin, end)
        }

    @cached_property
    def _ways(self) -> dict[int, int]:
        """How many paths lead from each place to the end."""
        ways = {self.end: 1}
        for start in reversed(range(self.begin, self.end)):
            ways[start] = sum(ways[stop] for stop, _ in self.edges[start])
        return ways

    @property
    def count(self) -> int:
        return self._ways[self.begin]

    def paths(self, most: int) -> Iterator[tuple[int, ...]]:
        """Each path, where there are not too many; else a path over every single piece, and random ones."""
        if self.count <= most:
            yield from self._all(self.begin)
            return
        generator = random.Random(0)
        ends_at: dict[int, list[tuple[int, int]]] = {place: [] for place in range(self.begin, self.end + 1)}
        for start, pieces in self.edges.items():
            for stop, token_id in pieces:
                ends_at[stop].append((start, token_id))
        for start, pieces in self.edges.items():
            for stop, token_id in pieces:
                head: list[int] = []
                place = start
                while place > self.begin:
                    place, before = generator.choice(ends_at[place])
                    head.insert(0, before)
                yield (*head, token_id, *self._random(stop, generator))
        for _ in range(RANDOM_PATHS):
            yield tuple(self._random(self.begin, generator))

    def _all(self, start: int) -> Iterator[tuple[int, ...]]:
        if start == self.end:
            yield ()
            return
        for stop, token_id in self.edges[start]:
            for rest in self._all(stop):
                yield (token_id, *rest)

    def _random(self, start: int, generator: random.Random) -> Iterator[int]:
        """A path from here to the end, each as likely as any other."""
        while start < self.end:
            weights = [self._ways[stop] for stop, _ in self.edges[start]]
            ((start, token_id),) = generator.choices(self.edges[start], weights)
            yield token_id
