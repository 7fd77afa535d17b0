"""The model's folder: what is taken over from the base, what is new, and in which order it comes."""

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

# Copied byte by byte, never saved anew: ids, special tokens and the chat template stay what they are.
_TAKEN_OVER = (
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
    """The local folder of a model to train; one of the hub is downloaded first.

    Raises:
        ModelError: there is no such model, or its weights are quantized.
        MissingExtraError: the hub's client is not installed.
    """
    location = resolve(model).location
    if is_gguf(location):
        raise ModelError(f"{model!r} holds quantized weights: train the model that the GGUF file was made from")
    folder = Path(location) if Path(location).is_dir() else _downloaded(model, location)
    method = quantization(folder)
    if method is not None:
        raise ModelError(
            f"the weights of {model!r} are quantized ({method}), and what is trained would not be: its folder could "
            "not be loaded. Train a version of the model in bfloat16, or write one with transformers (dequantize)"
        )
    return folder


def quantization(folder: Path) -> str | None:
    """The method that a model's weights are quantized with, as its configuration says; None where they are not."""
    values = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
    parts = [values, *(part for part in values.values() if isinstance(part, dict))]
    found = next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)
    return None if found is None else str(found.get("quant_method", "by an unnamed method"))


def _downloaded(model: str, location: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(location, allow_patterns=[MODEL_CONFIG, *_TAKEN_OVER, *_WEIGHTS]))
    except Exception as error:  # whatever the hub's client and the HTTP library under it raise
        raise ModelError(f"cannot download the model {model!r}: {first_line(error)}") from error


def dtype(folder: Path) -> str:
    """The type that a model's weights are stored in: its configuration's, or float32."""
    values = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))
    return str(values.get("dtype") or values.get("torch_dtype") or "float32").removeprefix("torch.")


def install(weights: Path, base: Path, output: Path) -> None:
    """Make the output a model's folder: new weights, all else the base's. The configuration comes last.

    Args:
        weights: a folder with the new weights; emptied and removed.
        base: the model that they were trained from.
        output: the folder.

    Raises:
        TrainingError: it cannot be written.
    """
    with writing("the model", output):
        for path in _matching(weights, (*_WEIGHTS, ADAPTERS)):
            path.chmod(0o644)  # safetensors writes for its owner alone
            path.replace(output / path.name)
        for path in _matching(base, _TAKEN_OVER):
            shutil.copyfile(path, output / path.name)
        beside = output / f"{MODEL_CONFIG}.new"
        shutil.copyfile(base / MODEL_CONFIG, beside)
        beside.replace(output / MODEL_CONFIG)
        shutil.rmtree(weights)


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Whatever fails within is a file that could not be written.

    Torch raises RuntimeError and safetensors an error of its own where the system's call fails.

    Raises:
        TrainingError: one line that says what could not be written and how much room there is.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / 1e6
        reason = getattr(error, "strerror", None) or first_line(error)
        if isinstance(error, RuntimeError) and free < 1:  # torch names a line of its own source
            reason = "no space left on the device"
        raise TrainingError(
            f"cannot write {what} to {folder}: {reason} ({free:,.0f} MB are free there); "
            "make room and run the same command again"
        ) from error


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns):
            yield path
