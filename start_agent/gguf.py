"""GGUF files (llama.cpp's format) as models: one file holds weights, tokenizer and chat template."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from start_agent.errors import MissingExtraError

SUFFIX = ".gguf"


def is_gguf(model: str | Path) -> bool:
    """Whether a model's name is a GGUF file."""
    return str(model).lower().endswith(SUFFIX)


def pretrained(model: str, revision: str | None = None) -> tuple[str, dict[str, Any]]:
    """The first argument and the keyword arguments for transformers' ``from_pretrained``.

    Args:
        model: a name on the hub, a folder, or a GGUF file.
        revision: a branch, tag or commit on the hub.

    Raises:
        MissingExtraError: the model is a GGUF file and the package that reads it is not installed.
    """
    if not is_gguf(model):
        return model, {"revision": revision}
    if find_spec("gguf") is None:  # transformers reads the file with it
        raise MissingExtraError("gguf", "gguf")
    path = Path(model)
    return str(path.parent), {"gguf_file": path.name}
