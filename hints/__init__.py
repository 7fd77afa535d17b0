"""Hints: short first-person sentences that wake a long-thinking model's use of Python.

What a hint is, how a file of your own is written and how a hint is joined to a trace: ``hints/README.md``.
Importing this package needs the standard library only; yaml and pydantic are loaded with the first library.
"""

from hints.collection import HintLibrary
from hints.errors import DuplicateHintError, HintError, HintFileError, NoHintError
from hints.hint import OPENING_FENCE, Domain, Function, Hint, Placement, Template
from hints.joining import join

__all__ = [
    "OPENING_FENCE",
    "Domain",
    "DuplicateHintError",
    "Function",
    "Hint",
    "HintError",
    "HintFileError",
    "HintLibrary",
    "NoHintError",
    "Placement",
    "Template",
    "join",
]
