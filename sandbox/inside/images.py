"""Images that a cell shows, for a host that wants them: figures of matplotlib, and what else notebooks show as one.

Nothing is drawn, and no library is loaded, unless they are wanted. Then a cell prints the same as else: what drawing
prints or warns of is dropped.
"""

from __future__ import annotations

import base64
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.utils.dir2 import get_real_method

from . import wire
from .formats import JPEG, MIMES, PNG, is_image

_METHODS = {PNG: "_repr_png_", JPEG: "_repr_jpeg_"}  # see IPython's documentation, "Rich display"


class _Nowhere(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


class Images:
    """The images of the running cell.

    Attributes:
        wanted: whether there are to be any.
        dropped: whether any is missing: it was one too many or too large, or could not be drawn.
    """

    def __init__(self) -> None:
        self.wanted = self.dropped = False
        self._most = self._most_bytes = 0
        self._taken: list[tuple[int, bytes]] = []

    def limit(self, most: int, most_bytes: int) -> None:
        """Say how many there may be of a cell, and how large they may be together, in bytes."""
        self._most, self._most_bytes = most, most_bytes

    def begin(self, *, wanted: bool) -> None:
        """A cell begins."""
        self.wanted, self.dropped = wanted, False
        self._taken.clear()

    def take(self) -> list[bytes]:
        """The cell is over. Returns its images as frames, and forgets them."""
        if not self.wanted:
            return []
        self.wanted = False
        frames = [frame for kind, data in self._taken for frame in wire.image_frames(kind, data)]
        self._taken.clear()
        return frames

    def add_bundle(self, bundle: dict[str, Any]) -> None:
        """A value is shown, in these forms, by type: take the image, if one of them is."""
        if self.wanted:
            for kind, mime in enumerate(MIMES):
                if bundle.get(mime) is not None:
                    self._add(kind, bundle[mime])
                    return

    def add_figure(self, figure: Any) -> None:
        """A figure of matplotlib is shown, or open at the end of the cell. The same picture is taken once."""
        if self.wanted and (data := self._drawn(figure)) is not None:
            self._add(PNG, data, once=True)

    def forms(self, thing: Any) -> dict[str, Any]:
        """The image of something that is to be shown, as a notebook would show it, by type; empty where it is none."""
        if not self.wanted:
            return {}
        if _is_figure(thing):  # which is taken here: it may be shown again, as what is open at the end
            self.add_figure(thing)
            return {}
        if get_real_method(thing, "_repr_latex_") is not None:  # a formula, which notebooks show as one
            return {}
        if self._is_full(thing):
            return {}
        try:
            with _quiet():
                return _forms(thing)
        except Exception:
            self.dropped = True
            return {}

    def _is_full(self, thing: Any) -> bool:
        """Whether no more images are taken. Then nothing is drawn, and what could be one counts as dropped."""
        if len(self._taken) < self._most:
            return False
        methods = ("_repr_mimebundle_", *_METHODS.values())
        self.dropped |= _is_figure(thing) or any(get_real_method(thing, name) is not None for name in methods)
        return True

    def _drawn(self, figure: Any) -> Any:
        if self._is_full(figure):
            return None
        try:
            with _quiet():
                return _draw(figure)
        except Exception:
            self.dropped = True
            return None

    def _add(self, kind: int, data: Any, *, once: bool = False) -> None:
        """Add an image: bytes, or these in base64, perhaps with something said about them."""
        if isinstance(data, tuple) and data:
            data = data[0]
        if isinstance(data, str) and len(data) <= 2 * self._most_bytes:
            with suppress(ValueError):
                data = base64.b64decode(data)
        left = self._most_bytes - sum(len(other) for _, other in self._taken)
        if not isinstance(data, bytes) or len(data) > left or len(self._taken) >= self._most:
            self.dropped = True
        elif once and (kind, data) in self._taken:
            pass
        elif is_image(kind, data):
            self._taken.append((kind, data))
        else:
            self.dropped = True


images = Images()
"""Of this kernel."""


def _is_figure(thing: Any) -> bool:
    module = sys.modules.get("matplotlib.figure")
    figure = getattr(module, "Figure", None)
    return isinstance(figure, type) and isinstance(thing, figure)


def _draw(figure: Any) -> Any:
    """A figure as PNG, as `%matplotlib inline` is set up or else by its defaults; None where there is nothing in it."""
    shell: Any = get_ipython()
    try:
        draw = shell.display_formatter.formatters[MIMES[PNG]].lookup(figure)
    except KeyError:
        return print_figure(figure)  # type: ignore[no-untyped-call]  # IPython's
    return draw(figure)


def _forms(thing: Any) -> dict[str, Any]:
    method = get_real_method(thing, "_repr_mimebundle_")
    if method is not None:
        bundle = method(include=set(MIMES), exclude=None)
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        found = {mime: bundle[mime] for mime in MIMES if mime in (bundle or {})}
        if found:
            return found
    for kind, name in _METHODS.items():
        method = get_real_method(thing, name)
        if method is not None and (data := method()) is not None:
            return {MIMES[kind]: data}
    return {}


@contextmanager
def _quiet() -> Iterator[None]:
    """What is printed or warned of meanwhile is dropped."""
    kept = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = _Nowhere()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        sys.stdout, sys.stderr = kept
