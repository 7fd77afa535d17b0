"""The packages beside this one have common names, ``sandbox`` and ``hints``: are those that answer to them ours?"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from start_agent.errors import NameTakenError

_BESIDE = ("hints", "sandbox")


def check() -> None:
    """Look for both, without importing them.

    Raises NameTakenError where one comes from elsewhere than this package, or is not there.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in _BESIDE:
        found = _place(name)
        if found != ours / name:
            where = "nothing" if found is None else str(found)
            raise NameTakenError(
                f"start_agent comes with a package {name!r} in {ours}, but to its name answers {where}: "
                "rename that, leave its folder, or install start-agent into an environment of its own"
            )


def _place(name: str) -> Path | None:
    module = sys.modules.get(name)
    spec: ModuleSpec | None = find_spec(name) if module is None else module.__spec__
    if spec is None:
        return None
    if spec.origin is not None:
        origin = Path(spec.origin).resolve()
        return origin.parent if spec.submodule_search_locations is not None else origin
    return next((Path(entry).resolve() for entry in spec.submodule_search_locations or ()), None)
