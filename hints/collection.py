"""``HintLibrary``: an immutable collection of hints, with selection by criteria."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from hints.errors import DuplicateHintError, HintFileError, NoHintError
from hints.hint import Domain, Function, Hint, Placement, Template

_BUILTIN_FILES = ("math.yaml", "code.yaml")


class HintLibrary:
    """An immutable set of hints with distinct ids, sorted by id.

    The order does not depend on files, so a seeded choice gives the same hint however the hints were split
    over files or ordered in them.
    """

    __slots__ = ("_hints",)

    def __init__(self, hints: Iterable[Hint]) -> None:
        """Build a library from hints. Raises ``DuplicateHintError`` if two share an id."""
        by_id: dict[str, Hint] = {}
        for hint in hints:
            if hint.id in by_id:
                raise DuplicateHintError(f"two hints have the id `{hint.id}`; give each its own")
            by_id[hint.id] = hint
        self._hints = {hint_id: by_id[hint_id] for hint_id in sorted(by_id)}

    @classmethod
    def builtin(cls) -> HintLibrary:
        """The built-in hints. Read and validated once per process."""
        return _builtin()

    @classmethod
    def load(cls, *paths: str | os.PathLike[str]) -> HintLibrary:
        """The built-in hints, then each file in turn: a hint replaces an earlier one of the same id.

        A file with ``mode: replace`` first discards all earlier hints, including the built-in ones. The mode can
        only be set in the file, since its author knows whether it is a complete library or an addition.
        Raises ``HintFileError``.
        """
        # Imported here, so that `import hints` loads neither yaml nor pydantic.
        from hints.files import parse
        from hints.schema import Mode

        hints = dict(cls.builtin()._hints)
        for path in paths:
            file = parse(_read(Path(path)), str(path))
            if file.mode is Mode.REPLACE:
                hints.clear()
            hints.update((hint.id, hint) for hint in file.hints)
        return cls(hints.values())

    def select(
        self,
        domain: Domain,
        placement: Placement,
        function: Function | None = None,
        template: Template | None = None,
    ) -> tuple[Hint, ...]:
        """The matching hints, sorted by id; empty if there are none.

        None for ``function`` or ``template`` means any.
        """
        return tuple(
            hint
            for hint in self._hints.values()
            if hint.domain is domain
            and hint.placement is placement
            and (function is None or hint.function is function)
            and (template is None or hint.template is template)
        )

    def choose(
        self,
        rng: random.Random,
        domain: Domain,
        placement: Placement,
        function: Function | None = None,
        template: Template | None = None,
    ) -> Hint:
        """One of the hints of ``select``, drawn uniformly.

        Draws from ``rng`` once. Raises ``NoHintError`` if no hint matches.
        """
        fitting = self.select(domain, placement, function, template)
        if not fitting:
            asked = (domain, placement, function, template)
            wanted = ", ".join(str(value) for value in asked if value is not None)
            raise NoHintError(f"the hint library has no hint for: {wanted}; add one to your hint file")
        return rng.choice(fitting)

    def __getitem__(self, hint_id: str) -> Hint:
        """The hint with this id. Raises ``NoHintError`` (a ``LookupError``)."""
        try:
            return self._hints[hint_id]
        except KeyError:
            raise NoHintError(f"the hint library has no hint `{hint_id}`") from None

    def __iter__(self) -> Iterator[Hint]:
        return iter(self._hints.values())

    def __len__(self) -> int:
        return len(self._hints)

    def __repr__(self) -> str:
        return f"HintLibrary({len(self)} hints)"


@cache
def _builtin() -> HintLibrary:
    from hints.files import parse

    folder = resources.files("hints") / "library"
    files = (parse((folder / name).read_bytes(), f"hints/library/{name}") for name in _BUILTIN_FILES)
    return HintLibrary(hint for file in files for hint in file.hints)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise HintFileError(str(path), None, "no such file; check the path") from None
    except IsADirectoryError:
        raise HintFileError(str(path), None, "a folder, not a hint file; name the file in it") from None
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}; check the path and its permissions"
        raise HintFileError(str(path), None, reason) from None
    except ValueError as error:  # a NUL in the path
        raise HintFileError(str(path), None, f"not a usable path: {error}; check the path") from None
