"""Images that a cell displays, if the host requests them: matplotlib figures, and objects with a PNG or JPEG form.

Without a request nothing is rendered and no library is loaded. With one, a cell prints the same as without: output and
warnings of the rendering are dropped.
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

_METHODS = {PNG: "_repr_png_", JPEG: "_repr_jpeg_"}  # see "Rich display" in IPython's documentation


class _Null(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


class Images:
    """The images of the running cell.

    Attributes:
        wanted: whether the host has requested them.
        dropped: whether one is missing: it exceeded a limit, or could not be rendered.
    """

    def __init__(self) -> None:
        self.wanted = self.dropped = False
        self._most = self._most_bytes = 0
        self._taken: list[tuple[int, bytes]] = []

    def limit(self, most: int, most_bytes: int) -> None:
        """Set the maximum number and the maximum total size, in bytes, of a cell's images."""
        self._most, self._most_bytes = most, most_bytes

    def begin(self, *, wanted: bool) -> None:
        """A cell begins."""
        self.wanted, self.dropped = wanted, False
        self._taken.clear()

    def take(self) -> list[bytes]:
        """A cell is over: return its images as frames."""
        self.wanted = False
        frames = [frame for kind, data in self._taken for frame in wire.image_frames(kind, data)]
        self._taken.clear()
        return frames

    def add_bundle(self, bundle: dict[str, Any]) -> None:
        """Add the image of a displayed value, given its forms by MIME type."""
        if self.wanted:
            for kind, mime in enumerate(MIMES):
                if bundle.get(mime) is not None:
                    self._add(kind, bundle[mime])
                    return

    def add_figure(self, figure: Any) -> None:
        """Add a matplotlib figure, unless the cell has displayed the same image before."""
        if self.wanted and (data := self._rendered(figure)) is not None:
            self._add(PNG, data, once=True)

    def forms(self, thing: Any) -> dict[str, Any]:
        """The image of a displayed value by MIME type, as a notebook would show it; empty if there is none."""
        if not self.wanted:
            return {}
        if _is_figure(thing):  # added here, since it may be open at the end of the cell as well
            self.add_figure(thing)
            return {}
        if get_real_method(thing, "_repr_latex_") is not None:  # a formula: notebooks prefer that form
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
        """Whether the cell has its maximum of images. If so, anything that may be an image counts as dropped."""
        if len(self._taken) < self._most:
            return False
        methods = ("_repr_mimebundle_", *_METHODS.values())
        self.dropped |= _is_figure(thing) or any(get_real_method(thing, name) is not None for name in methods)
        return True

    def _rendered(self, figure: Any) -> Any:
        if self._is_full(figure):
            return None
        try:
            with _quiet():
                return _render(figure)
        except Exception:
            self.dropped = True
            return None

    def _add(self, kind: int, data: Any, *, once: bool = False) -> None:
        """Add an image: bytes or base64, perhaps in a tuple with metadata."""
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
"""Images of this kernel."""


def _is_figure(thing: Any) -> bool:
    module = sys.modules.get("matplotlib.figure")
    figure = getattr(module, "Figure", None)
    return isinstance(figure, type) and isinstance(thing, figure)


def _render(figure: Any) -> Any:
    """Render a figure as PNG, with the settings of `%matplotlib inline` or its defaults; None for an empty figure."""
    shell: Any = get_ipython()
    try:
        render = shell.display_formatter.formatters[MIMES[PNG]].lookup(figure)
    except KeyError:
        return print_figure(figure)  # type: ignore[no-untyped-call]  # IPython's
    return render(figure)


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
    """Drop output and warnings."""
    kept = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = _Null()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        sys.stdout, sys.stderr = kept
