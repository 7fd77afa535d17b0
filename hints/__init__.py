"""Hints: short first-person sentences that prompt a long-thinking model to use Python.

``hints/README.md`` explains hints, custom hint files and how a hint is joined to a trace. Importing this package needs
only the standard library; yaml and pydantic are imported when the first library is loaded.
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
