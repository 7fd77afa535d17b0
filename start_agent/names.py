"""Check that the packages imported as ``sandbox`` and ``hints``, which are common names, are ours."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path, PurePath

from start_agent.errors import INPUT_ERROR, NameTakenError

_PACKAGES = ("hints", "sandbox")


def check() -> None:
    """Find both packages, without importing them.

    Raises NameTakenError if one is missing or comes from another place than this package. In the command
    ``start-agent``, which imports this package before it can catch anything, the process exits with a one-line message.
    """
    try:
        _check()
    except NameTakenError as error:
        if not _is_command(sys.argv[0] if sys.argv else "", sys.orig_argv):
            raise
        sys.stderr.write(f"start-agent: {error}\n")
        sys.exit(INPUT_ERROR)


def _is_command(program: str, words: list[str]) -> bool:
    """Whether this process is ``start-agent`` or ``python -m start_agent``.

    Args:
        program: sys.argv[0], which is "-m" while Python imports the module's package.
        words: sys.orig_argv.
    """
    if program == "-m":
        return "start_agent" in words or "-mstart_agent" in words
    return PurePath(program).name == "start-agent"


def _check() -> None:
    ours = Path(__file__).resolve().parents[1]
    for name in _PACKAGES:
        found = _location(name)
        if found != ours / name:
            where = "nothing" if found is None else str(found)
            raise NameTakenError(
                f"start_agent needs its own package {name!r} in {ours}, but Python finds {where}: "
                "rename that, leave its folder, or install start-agent into a separate environment"
            )


def _location(name: str) -> Path | None:
    module = sys.modules.get(name)
    spec: ModuleSpec | None = find_spec(name) if module is None else module.__spec__
    if spec is None:
        return None
    if spec.origin is not None:
        origin = Path(spec.origin).resolve()
        return origin.parent if spec.submodule_search_locations is not None else origin
    return next((Path(entry).resolve() for entry in spec.submodule_search_locations or ()), None)
