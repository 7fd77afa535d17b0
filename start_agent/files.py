"""What a file or a model's folder holds, as a sha256: what has been replaced under an old name shows there."""

from __future__ import annotations

import hashlib
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
MODEL_CONFIG = "config.json"
ADAPTERS = "adapter_config.json"

_SAMPLE = 1 << 20  # bytes of each end of a file of weights that a model's digest covers


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(model: Path) -> str:
    """sha256, in hex, over a model's configuration and both ends of each file of its weights: another training shows
    there, and a large model need not be read whole. Of a GGUF file, over its both ends. Raises OSError.
    """
    if model.is_file():
        total, paths = hashlib.sha256(), [model]
    else:
        total = hashlib.sha256((model / MODEL_CONFIG).read_bytes())
        paths = sorted(path for pattern in _WEIGHTS for path in model.glob(pattern))
    for path in paths:
        size = path.stat().st_size
        total.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            total.update(file.read(_SAMPLE))
            file.seek(max(size - _SAMPLE, 0))
            total.update(file.read())
    return total.hexdigest()
