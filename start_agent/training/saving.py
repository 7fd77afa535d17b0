"""Writes the folder of a trained model: new weights, and the other files copied from the base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from start_agent.errors import ModelError, TrainingError, first_line
from start_agent.files import ADAPTERS, MODEL_CONFIG
from start_agent.gguf import is_gguf
from start_agent.models import PROMPTING, resolve

# Copied byte by byte and never saved again, so that ids, special tokens and the chat template stay unchanged.
_COPIED = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "generation_config.json",
    "LICENSE*",
    PROMPTING,
)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def base_folder(model: str) -> Path:
    """The local folder of a model to train; a model of the Hub is downloaded.

    Raises:
        ModelError: there is no such model, or its weights are quantized.
        MissingExtraError: the Hub's client is not installed.
    """
    location = resolve(model).location
    if is_gguf(location):
        raise ModelError(f"{model!r} has quantized weights: train the model that the GGUF file was made from")
    folder = Path(location) if Path(location).is_dir() else _downloaded(model, location)
    method = quantization(folder)
    if method is not None:
        raise ModelError(
            f"the weights of {model!r} are quantized ({method}), which cannot be fine-tuned: "
            "use a bfloat16 version of the model, or write one with transformers (dequantize)"
        )
    return folder


def quantization(folder: Path) -> str | None:
    """The quantization method of a model's weights, from its configuration; None if they are not quantized."""
    values = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
    parts = [values, *(part for part in values.values() if isinstance(part, dict))]
    found = next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)
    return None if found is None else str(found.get("quant_method", "by an unnamed method"))


def _downloaded(model: str, location: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(location, allow_patterns=[MODEL_CONFIG, *_COPIED, *_WEIGHTS]))
    except Exception as error:  # the Hub's client and its HTTP library raise many types
        raise ModelError(f"cannot download the model {model!r}: {first_line(error)}") from error


def dtype(folder: Path) -> str:
    """The dtype of a model's stored weights, from its configuration; float32 if it does not say."""
    values = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
    return str(values.get("dtype") or values.get("torch_dtype") or "float32").removeprefix("torch.")


def install(weights: Path, base: Path, output: Path) -> None:
    """Complete the output folder: new weights, other files copied from the base, the configuration last.

    Args:
        weights: a folder with the new weights; removed afterwards.
        base: folder of the base model.
        output: the output folder.

    Raises:
        TrainingError: a file cannot be written.
    """
    with writing("the model", output):
        for path in _matching(weights, (*_WEIGHTS, ADAPTERS)):
            path.chmod(0o644)  # safetensors makes files readable for the owner only
            path.replace(output / path.name)
        for path in _matching(base, _COPIED):
            shutil.copyfile(path, output / path.name)
        temporary = output / f"{MODEL_CONFIG}.new"
        shutil.copyfile(base / MODEL_CONFIG, temporary)
        temporary.replace(output / MODEL_CONFIG)
        shutil.rmtree(weights)


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Convert errors of writing files in the context into TrainingError.

    When a system call fails, torch raises RuntimeError and safetensors its own error.

    Raises:
        TrainingError: a one-line message with what could not be written and the free space.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / 1e6
        reason = getattr(error, "strerror", None) or first_line(error)
        if isinstance(error, RuntimeError) and free < 1:  # torch's message only names a line of its source
            reason = "no space left on the device"
        raise TrainingError(
            f"cannot write {what} to {folder}: {reason} ({free:,.0f} MB free); "
            "free some space and run the same command again"
        ) from error


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns):
            yield path
